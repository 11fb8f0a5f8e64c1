"""What an Airflow task is here: one `plumb` command. DAGs only order such commands.

`PLUMBLINE_TASKS` says where it runs: in the pipeline environment of Airflow's worker, or in a pod (pods.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.orchestration.operators import DAG_RUN, ending_at_gates
from plumbline.product import PARENT, Product
from plumbline.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Param
    from airflow.timetables.base import Timetable

AS_OF = (
    "{{ params.as_of or (data_interval_start if data_interval_start is defined and data_interval_start"
    " else dag_run.run_after - macros.timedelta(days=1)) | ds }}"
)
"""The day a run covers: the `as_of` it was triggered with, else the day of its data interval. A run without a logical
date has none: it covers the last day that was over when it was asked for, in all of its tasks."""


def daily() -> Timetable | None:
    """Once a day at 00:00 UTC. None in a replay: its days are not those on the scheduler's wall, they are asked for."""
    from airflow.timetables.interval import CronDataIntervalTimetable

    return None if clock.is_replay() else CronDataIntervalTimetable("0 0 * * *", timezone="UTC")


def as_of_param() -> Param:
    """The day that a run may be triggered with; in a replay it is, unless said otherwise, the last day that is over."""
    from airflow.sdk import Param

    default = clock.last_whole_day().isoformat() if clock.is_replay() else None
    return Param(default, type=["null", "string"], format="date", description="The last day covered.")


def stages_in_order(
    product: Product, stages: Sequence[str], ahead_of: Mapping[str, BaseOperator] | None = None, **of_last: Any
) -> None:
    """A task for each of the product's stages, one after the other; `of_last` goes to the last one's operator.

    `ahead_of` has tasks that are no stages, by the stage that each comes right before.
    """
    from airflow.sdk.bases.operator import chain

    ahead_of, tasks = ahead_of or {}, list[Any]()
    for name in stages:
        tasks += [ahead_of[name]] if name in ahead_of else []
        tasks.append(stage_task(product, name, **(of_last if name == stages[-1] else {})))
    chain(*tasks)


def stream_reached(task_id: str, within: timedelta, **operator: Any) -> BaseOperator:
    """The sensor that waits until the order stream has reached the end of the run's day; late, it fails with what lags.

    A home in which no stream ever ran does not wait. `operator` goes to the operator as it is.
    """
    if settings().tasks == "pods":
        seconds = int(within.total_seconds())
        return plumb_task(task_id, f"events reached --day {AS_OF} --wait {seconds}", **operator)
    from plumbline.orchestration.waiting import StreamReached

    retry: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=settings().retry_seconds)}
    command = shlex.quote(str(settings().plumb_command))
    return StreamReached(task_id=task_id, command=command, day=AS_OF, timeout=within, **{**retry, **operator})


def stage_task(product: Product, name: str, **operator: Any) -> BaseOperator:
    """The task of a stage, named after it: its `plumb` command, for a day where the stage works on one."""
    command = product.command_of(name).removeprefix("plumb ")
    return plumb_task(name, f"{command} --as-of {AS_OF}" if product.stage(name).work else command, **operator)


def plumb_task(task_id: str, command: str, **operator: Any) -> BaseOperator:
    """The task `plumb <command>`, tried a second time after anything but a gate.

    `command` may hold Airflow templates; `operator` goes to the operator as it is (outlets, for one).
    """
    common = {
        "task_id": task_id,
        "retries": 1,
        "retry_delay": timedelta(seconds=settings().retry_seconds),
        "skip_on_exit_code": GateFailed.exit_code,
        **operator,
    }
    if settings().tasks == "pods":
        from plumbline.orchestration.pods import pod_task

        return pod_task(command, **common)
    from airflow.providers.standard.operators.bash import BashOperator

    return ending_at_gates(BashOperator)(
        bash_command=f"{shlex.quote(str(settings().plumb_command))} {command}",
        env={PARENT: DAG_RUN},
        append_env=True,
        **common,
    )
