"""What an Airflow task is here: one `plumb` command in the pipeline environment. DAGs only order such commands."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plumbline.settings import settings

if TYPE_CHECKING:
    from airflow.providers.standard.operators.bash import BashOperator

AS_OF = "{{ params.as_of or data_interval_start | ds }}"
"""The day a run covers: the `as_of` it was triggered with, else the day of its data interval."""


def plumb_task(command: str, *, gate: bool = False, **operator: Any) -> BashOperator:
    """The task `plumb <command>`, named after the command's first word. A failed gate is never retried.

    `command` may hold Airflow templates; `operator` goes to the operator as it is (outlets, for one).
    """
    from airflow.providers.standard.operators.bash import BashOperator

    return BashOperator(
        task_id=command.split()[0],
        bash_command=f"{shlex.quote(str(settings().plumb_command))} {command}",
        append_env=True,
        retries=0 if gate else 1,
        retry_delay=timedelta(seconds=30),
        **operator,
    )
