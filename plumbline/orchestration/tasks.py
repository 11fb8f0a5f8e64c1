"""What an Airflow task is here: one `plumb` command. DAGs only order such commands.

`PLUMBLINE_TASKS` says where it runs: in the pipeline environment of Airflow's worker, or in a pod (pods.py).
"""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.orchestration.operators import DAG_RUN, ending_at_gates
from plumbline.product import PARENT
from plumbline.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Param
    from airflow.timetables.base import Timetable

AS_OF = "{{ params.as_of or data_interval_start | ds }}"
"""The day a run covers: the `as_of` it was triggered with, else the day of its data interval."""


def daily() -> Timetable | None:
    """Once a day at 00:00 UTC. None in a replay: its days are not those on the scheduler's wall, they are asked for."""
    from airflow.timetables.interval import CronDataIntervalTimetable

    return None if clock.is_replay() else CronDataIntervalTimetable("0 0 * * *", timezone="UTC")


def as_of_param() -> Param:
    """The day that a run may be triggered with; in a replay it is, unless said otherwise, the last day that is over."""
    from airflow.sdk import Param

    default = clock.last_whole_day().isoformat() if clock.is_replay() else None
    return Param(default, type=["null", "string"], format="date", description="The last day covered.")


def plumb_task(command: str, **operator: Any) -> BaseOperator:
    """The task `plumb <command>`, named after the command's first word; tried a second time after anything but a gate.

    `command` may hold Airflow templates; `operator` goes to the operator as it is (outlets, for one).
    """
    common = {
        "task_id": command.split()[0],
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
