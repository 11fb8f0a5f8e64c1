"""The job is told to stop: the batch at work is done, and none that comes meanwhile is waited for."""

from __future__ import annotations

import threading

from ingestion.events import stream as stream_job
from plumbline.servers.kafka import Broker


def test_a_batch_that_comes_while_the_query_is_stopped_does_not_hold_it_up() -> None:
    plan = stream_job.Plan(lambda *_: None, "", lambda _: None, lambda: None)  # type: ignore[arg-type, return-value]
    job = stream_job._Job(plan, Broker("a:1", None, None, tls=False), None, {}, None)  # type: ignore[arg-type]
    raised = list[BaseException]()

    def batch() -> None:
        try:
            job._batch(None, 1)  # type: ignore[arg-type]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=batch, daemon=True)
    with job._at_work:
        thread.start()
        job._stop()
        thread.join(10)
        assert [type(error).__name__ for error in raised] == ["_Stopped"]
