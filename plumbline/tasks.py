"""What an Airflow task is here: one `plumb` command. DAGs only order such commands.

`PLUMBLINE_TASKS` says where it runs: in the pipeline environment of Airflow's worker, or in a pod (`plumbline.pods`).
"""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plumbline.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

AS_OF = "{{ params.as_of or data_interval_start | ds }}"
"""The day a run covers: the `as_of` it was triggered with, else the day of its data interval."""


def plumb_task(command: str, *, gate: bool = False, **operator: Any) -> BaseOperator:
    """The task `plumb <command>`, named after the command's first word. A failed gate is never retried.

    `command` may hold Airflow templates; `operator` goes to the operator as it is (outlets, for one).
    """
    common = {
        "task_id": command.split()[0],
        "retries": 0 if gate else 1,
        "retry_delay": timedelta(seconds=30),
        **operator,
    }
    if settings().tasks == "pods":
        from plumbline.pods import pod_task

        return pod_task(command, **common)
    from airflow.providers.standard.operators.bash import BashOperator

    return BashOperator(
        bash_command=f"{shlex.quote(str(settings().plumb_command))} {command}", append_env=True, **common
    )
