"""The gate before training: no step between the shop and a release's features is missing from what was observed.

Expected steps come from dbt's models, Feast's definitions and the stages' declarations; observed ones from the event
file, or a Marquez. They are matched by version and not by run: after an undo a release names what an earlier run wrote.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from plumbline import provenance
from plumbline.errors import GateFailed
from plumbline.lineage import expected
from plumbline.lineage.expected import Edge
from plumbline.lineage.runs import EventFile, Events, Port, Run
from plumbline.pipeline import gates, leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.state import erasures, objects, releases, trainings
from plumbline.state.releases import Release
from plumbline.verdict import FAILED, PASSED, Verdict

STAGE = "lineage_check"
GATE = "lineage_completeness"


@dataclass(frozen=True)
class Hole:
    """An expected step that was not seen as the release needs it, and what was seen instead."""

    edge: str
    told: str


def check(product: Product, release: int | None = None, events: Events | None = None) -> dict[str, Any]:
    """Judges the lineage of a release (default: the one in force); one that passed before by this code is unchanged.

    Raises GateFailed that names each hole, ReleaseError when there is no such release.
    """
    found = releases.required(product.name, release)
    with leases.lease(product, STAGE, "training"):
        edges = wanted(product, found)
        say(f"lineage of release {found.release_id}: {len(edges)} steps from the source to the features")
        holes = judge(found, (events or EventFile()).runs(), edges)
        key = trainings.key(product.name, found.release_id, trainings.LINEAGE)
        about = _about(found, edges, holes)
        before = objects.read_json(key) or {}
        if not holes and {name: value for name, value in before.items() if name != "gates"} == about:
            return {"state": "unchanged", **before}
        run_id = f"{product.name}-training-{found.release_id}"
        head = {"run_id": run_id, "stage": STAGE, "release_id": found.release_id}
        audit = gates.Audit(run_id)

        def judged() -> dict[str, Any]:
            told = tuple(f"{hole.edge}: {hole.told}" for hole in holes)
            reported = gates.record(audit, Verdict(GATE, not holes, len(edges), told), about, name=STAGE)
            objects.replace_json(key, about | audit.told())
            if holes:
                raise GateFailed(_refusal(found, holes, str(reported.report)))
            return {"message": f"release {found.release_id}: all {len(edges)} steps were seen", **about, **audit.told()}

        entry = stage.recorded(product, head, judged, audit.told)
        return {"state": "done", **entry}


def wanted(product: Product, release: Release) -> list[Edge]:
    """The expected steps that lead to the tables that Feast's views read, from the source on.

    A view beside the product's own may be of a version that this release does not have: then nothing leads to it.
    """
    named = {product.features, *release.tables}
    tables = sorted(named & set(expected.feast_tables(product).values()))
    return list(dict.fromkeys(edge for table in tables for edge in expected.upstream(product, table)))


def judge(release: Release, runs: list[Run], edges: list[Edge]) -> list[Hole]:
    """The expected steps that no run took to its end, from and to the versions that the release names."""
    found = [(edge, _missing(edge, release, runs)) for edge in edges]
    return [Hole(str(edge), told) for edge, told in found if told]


def _missing(edge: Edge, release: Release, runs: list[Run]) -> str | None:
    """Why a step does not hold, None when it does."""
    if edge.target not in release.tables:
        return f"release {release.release_id} names no version of {edge.target}"
    target, *earlier = _ports(edge.target, release)
    writers = [run for run in runs if {target, *earlier} & {*run.outputs} and run.job == edge.job]
    if not writers:
        return f"no event of {edge.job} says that it wrote {target}"
    ended = [run for run in writers if run.state == "COMPLETE"]
    if not ended:
        return f"{target} was written by a run that is not complete: {writers[-1].run_id} is {writers[-1].state}"
    source, *before = _ports(edge.source, release)
    if any({source, *before} & {*run.inputs} for run in ended):
        return None
    if edge.source not in release.tables and any(edge.source == port.dataset for run in ended for port in run.inputs):
        return None  # what lies outside the lake may have a version of its own, as a source of pictures has
    opened = [str(port) for port in ended[-1].inputs if port.dataset == edge.source]
    told = f"opened {', '.join(opened)}" if opened else f"was not seen to open {edge.source}"
    return f"{target} was written by run {ended[-1].run_id}, which {told}, not {source} as the release names it"


def _ports(dataset: str, release: Release) -> list[Port]:
    """The dataset as the release names it, and the versions that an erasure made that one from."""
    version = release.tables.get(dataset)
    if version is None:
        return [Port(dataset)]
    return [Port(dataset, str(each)) for each in (version, *erasures.origins(dataset, version))]


def _about(release: Release, edges: list[Edge], holes: list[Hole]) -> dict[str, Any]:
    """What lineage.json says besides the verdict: of which release, which steps, and by which code."""
    return {
        "verdict": FAILED if holes else PASSED,
        "release_id": release.release_id,
        "tables": dict(release.tables),
        "steps": [str(edge) for edge in edges],
        "holes": [asdict(hole) for hole in holes],
        "code_sha": provenance.code_sha(),
    }


def _refusal(release: Release, holes: list[Hole], report: str) -> str:
    lines = "\n  ".join(f"{hole.edge}: {hole.told}" for hole in holes)
    return (
        f"the lineage of release {release.release_id} has {len(holes)} hole{'s' if len(holes) > 1 else ''}, "
        f"nothing is trained on it:\n  {lines}\n  Evidence: {report}.\n"
        "  Events cannot be written afterwards: run the day again, which leaves new ones: "
        f"`plumb releases undo --why 'lineage'`, then `plumb ingest --as-of {release.as_of}` and the stages after it; "
        "or wait for the next day's release. A release from before lineage was kept needs the same."
    )
