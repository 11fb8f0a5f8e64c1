"""What an Airflow task is here: one `plumb` command. DAGs only order such commands.

`PLUMBLINE_TASKS` says where it runs: in the pipeline environment of Airflow's worker, or in a pod (`plumbline.pods`).
"""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lineage.declared import PARENT
from plumbline.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context, Param
    from airflow.timetables.base import Timetable

AS_OF = "{{ params.as_of or data_interval_start | ds }}"
"""The day a run covers: the `as_of` it was triggered with, else the day of its data interval."""


DAG_RUN = (
    "{{ macros.OpenLineageProviderPlugin.lineage_root_parent_id(task_instance)"
    " if macros.OpenLineageProviderPlugin is defined else '' }}"
)
"""The run of the DAG as Airflow's lineage names it, the parent of what a task does; nothing where that is off."""


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
        from plumbline.pods import pod_task

        return pod_task(command, **common)
    from airflow.providers.standard.operators.bash import BashOperator

    return ending_at_gates(BashOperator)(
        bash_command=f"{shlex.quote(str(settings().plumb_command))} {command}",
        env={PARENT: DAG_RUN},
        append_env=True,
        **common,
    )


def ending_at_gates(kind: type[BaseOperator]) -> type[BaseOperator]:
    """The operator, for which its `skip_on_exit_code` is a failure without a second try: a gate will not say otherwise.

    A skipped task would leave its run a success.
    """
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

    class EndsAtGates(kind):  # type: ignore[misc]
        def execute(self, context: Context) -> Any:
            try:
                return super().execute(context)
            except AirflowSkipException:
                raise AirflowFailException("a gate stopped it: see above, or `plumb gate list`") from None

    EndsAtGates.__name__ = EndsAtGates.__qualname__ = kind.__name__
    return EndsAtGates
