"""What Airflow's operators get from us: the run they belong to, and an end at a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


DAG_RUN = (
    "{{ macros.OpenLineageProviderPlugin.lineage_root_parent_id(task_instance)"
    " if macros.OpenLineageProviderPlugin is defined else '' }}"
)
"""The run of the DAG as Airflow's lineage names it, the parent of what a task does; nothing where that is off."""


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
