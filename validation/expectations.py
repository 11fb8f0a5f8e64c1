"""Great Expectations as this room uses it: an in-memory context, results and data docs kept in the home folder.

Nothing leaves the machine and nothing is written outside `<home>/gx` and `<home>/data_docs`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SITE = "data_docs"


@dataclass(frozen=True)
class Check:
    """One expectation: the class in great_expectations, its arguments, why, and the rows that break it as SQL."""

    expectation: str
    why: str
    arguments: dict[str, Any]
    offending: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How one expectation went. `observed` is a statistic's value, `unexpected` a count of rows; each may be absent."""

    check: Check
    name: str
    success: bool
    observed: Any = None
    unexpected: int | None = None
    trouble: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the evidence file."""
        return {**asdict(self.check), **{k: v for k, v in asdict(self).items() if k != "check"}}


def validate(table: str, run_name: str, frame: DataFrame, checks: Sequence[Check]) -> list[Outcome]:
    """Runs the checks on a Spark DataFrame, in the order given, and adds the result to the data docs."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations import expectations as catalogue
        from great_expectations.core.run_identifier import RunIdentifier

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = _context(gx)
        batch = (
            context.data_sources.add_spark("lake")
            .add_dataframe_asset(table)
            .add_batch_definition_whole_dataframe("pinned")
        )
        wanted = [
            getattr(catalogue, check.expectation)(**check.arguments, notes=check.why, meta={"n": n})
            for n, check in enumerate(checks)
        ]
        suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=wanted))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=table, data=batch, suite=suite))
        result = definition.run(
            batch_parameters={"dataframe": frame},
            result_format={"result_format": "BASIC", "partial_unexpected_count": 5},
            run_id=RunIdentifier(run_name=run_name, run_time=clock.wall()),
        )
        context.build_data_docs(site_names=[SITE], resource_identifiers=_pages(context, run_name))
    found = {item.expectation_config.meta["n"]: item for item in result.results}
    return [_outcome(check, found[n]) for n, check in enumerate(checks)]


def docs() -> Path:
    """The front page of the data docs."""
    return settings().home / "data_docs" / "index.html"


def _pages(context: Any, run_name: str) -> list[Any]:
    """What to draw: this run's results and the suite; the pages of earlier runs stay, the index lists them all."""
    results = [key for key in context.validation_results_store.list_keys() if key.run_id.run_name == run_name]
    return [*results, *context.expectations_store.list_keys()]


def _context(gx: Any) -> Any:
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    home = settings().home
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars={"globally": False},
    )
    config.stores["validation_results_store"] = {
        "class_name": "ValidationResultsStore",
        "store_backend": _folder(home / "gx" / "validations"),
    }
    config.data_docs_sites = {
        SITE: {
            "class_name": "SiteBuilder",
            "store_backend": _folder(home / "data_docs"),
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "show_how_to_buttons": False,
        }
    }
    return gx.get_context(mode="ephemeral", project_config=config)


def _folder(path: Path) -> dict[str, str]:
    path.mkdir(parents=True, exist_ok=True)
    return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(path)}


def _outcome(check: Check, item: Any) -> Outcome:
    result = item.result or {}
    troubles = item.exception_info or {}
    raised = [troubles] if "raised_exception" in troubles else [t for t in troubles.values() if isinstance(t, dict)]
    trouble = next((str(t.get("exception_message")).splitlines()[0] for t in raised if t.get("raised_exception")), None)
    return Outcome(
        check=check,
        name=item.expectation_config.type,
        success=bool(item.success),
        observed=result.get("observed_value"),
        unexpected=result.get("unexpected_count"),
        trouble=trouble,
    )
