"""Walking what was observed: by version, up to the shop and down to the endpoint; and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plumb import main as cli
from plumbline.lake import tables as lake
from plumbline.lineage import graph, page
from plumbline.lineage.graph import Graph
from plumbline.lineage.runs import EventFile, LineageError, Port, Run
from plumbline.pipeline import undo
from products.churn import CHURN
from tests.plumbline.lineage import made_up_day
from tests.plumbline.lineage.made_up_day import DAY, NEXT


@pytest.fixture(autouse=True)
def _trained(home: Path) -> None:
    made_up_day.run_day(DAY)
    made_up_day.run_day(NEXT)
    made_up_day.train()


def of(asked: str) -> Graph:
    return graph.of(asked, EventFile(), CHURN)


def ways_up(found: Graph, node: str) -> set[str]:
    above = set(found.made_from(node))
    return above.union(*(ways_up(found, source) for source in above))


def test_from_the_champion_to_the_shop_with_versions() -> None:
    found = of("champion")
    assert found.start == Port("models.churn_xgb.champion", "1")
    assert ways_up(found, str(found.start)) == {
        "models.churn_xgb@1",
        "runs.churn_xgb@f00d",
        "training.churn@churn-r2-abc",
        "features.customers@1",
        "analytics.orders@1",
        "analytics.orders_history@1",
        "analytics.customers_history@1",
        "analytics.returns_history@1",
        "raw.orders@1",
        "raw.customers@1",
        "raw.returns@1",
        "shop.orders",
        "shop.customers",
        "shop.returns",
    }, "neither the model it was compared with nor the base that features are carried on from"
    assert {run.state for run in found.runs.values()} == {"COMPLETE"}
    assert "endpoints.churn-predictor@1" in found.ports
    assert found.made_from("raw.orders@1") == ["shop.orders"], "not from all that its run opened"
    (deployed,) = found.above(str(found.start))
    assert found.also[deployed] == [Port("models.churn_xgb", "0")]


def test_from_raw_orders_to_the_endpoint() -> None:
    found = of("raw.orders@1")
    reached = {str(port) for port in found.ports.values()}
    assert {"features.customers@1", "models.churn_xgb@1", "endpoints.churn-predictor@1", "releases.churn@2"} <= reached
    assert "features.customers@0" not in reached
    looked = {run.stage for node, run in found.runs.items() if not found.below(node)}
    assert looked == {"ge_check", "distribution_check"}
    older = {str(port) for port in of("raw.orders@0").ports.values()}
    assert {"analytics.orders@0", "features.customers@0", "releases.churn@1"} <= older, (
        "though later runs opened it too"
    )
    assert "analytics.orders@1" not in older


def test_a_dataset_without_a_version_is_the_one_in_force() -> None:
    assert of("features.customers").start.version == "1"
    undo.undo(CHURN, why="a drill")
    found = of("features.customers")
    assert found.start.version == "0"
    assert {"raw.orders@0", "analytics.orders_history@0"} <= ways_up(found, "features.customers@0")


@pytest.mark.parametrize(
    ("asked", "start"),
    [
        ("1", "models.churn_xgb@1"),
        ("endpoint", "endpoints.churn-predictor@1"),
        ("f00d", "runs.churn_xgb@f00d"),
        ("churn-r2-abc", "training.churn@churn-r2-abc"),
        ("features.customers@v=0", "features.customers@0"),
        ("churn-1998-06-29", "releases.churn@2"),
    ],
)
def test_models_runs_and_versions_are_found_by_their_names(asked: str, start: str) -> None:
    assert str(of(asked).start) == start


def test_the_champion_is_the_one_deployed_last_not_the_highest_number() -> None:
    made_up_day.train(version="3")
    assert of("champion").start.version == "3"
    made_up_day.train(version="1")
    assert of("champion").start.version == "1"
    assert of("endpoint").start.version == "1"


def test_a_run_of_a_stage_is_found_by_its_uuid() -> None:
    node = of("features.customers").above("features.customers@1")[0]
    assert str(of(node).start) == "features.customers@1"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("feature.customer", "did you mean features.customers"),
        ("features.customers@9", "no event names features.customers@9; of features.customers there are 0, 1"),
        ("0190a3b4-0000-7000-8000-000000000001", "names '0190a3b4"),
    ],
)
def test_what_no_event_names_is_refused(asked: str, told: str) -> None:
    with pytest.raises(LineageError, match=told):
        of(asked)


def test_a_run_that_is_tried_again_is_shown_once_with_its_newest_end() -> None:
    port = Port("features.customers", "5")
    tries = [
        Run("a", "retail_features.features", "FAIL", "1998-01-01T00:00", outputs=[port]),
        Run("b", "retail_features.features", "COMPLETE", "1998-01-01T01:00", outputs=[port]),
        Run("c", "retail_features.features", "START", "1998-01-01T02:00", outputs=[port]),
    ]

    class Told:
        where = "here"

        def runs(self) -> list[Run]:
            return tries

    found = graph.of("features.customers@5", Told(), CHURN)
    assert (list(found.runs), found.alike) == (["b"], {"features.customers@5": 3})


def test_the_command_tells_it_as_a_tree_as_json_and_as_a_page() -> None:
    told = CliRunner().invoke(cli.app, ["lineage", "champion"])
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    depth = {
        word: next(line.index(word) for line in lines if word in line) for word in ("runs.churn_xgb", "raw.orders@1")
    }
    assert depth["runs.churn_xgb"] < depth["raw.orders@1"]
    assert any("features.customers@1" in line and "2 rows" in line and "complete" in line for line in lines)
    found = json.loads(CliRunner().invoke(cli.app, ["lineage", "champion", "--json"]).stdout)
    assert found["start"] == "models.churn_xgb.champion@1"
    features = next(run for run in found["runs"].values() if run["job"] == "retail_features.features")
    assert features["columns"]["features.customers"]["spend"] == [
        "analytics.orders_history.total_cents",
        "analytics.returns_history.cents",
    ]
    shown = CliRunner().invoke(cli.app, ["lineage", "raw.orders", "--html"])
    assert shown.exit_code == 0, (shown.output, shown.exception)
    path = Path(shown.stdout.strip())
    text = path.read_text()
    assert "<script" not in text and "http://" not in text and "https://" not in text
    for node in page.laid_out(of("raw.orders")).values():
        assert f'href="#{node.anchor}"' in text and f'id="{node.anchor}"' in text
    assert lake.uri("raw.orders") not in text


def test_an_event_of_another_form_is_left_out_and_told_and_all_others_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever writes into the same file or Marquez: the answer is of what can be read, never a traceback."""
    before, file = of("champion").as_dict(), EventFile().where
    events = [json.loads(line) for line in Path(file).read_text().splitlines()]
    whole = events[-1]
    strange = [
        {**whole, "job": "churn"},
        {key: value for key, value in whole.items() if key != "eventType"},
        {**whole, "run": {**whole["run"], "facets": {"parent": {"run": {"runId": "1"}}}}},
        {**whole, "inputs": [{"namespace": "plumbline"}]},
        {**whole, "outputs": ["features.customers"]},
    ]
    unknown = {**whole, "run": {**whole["run"], "facets": {**whole["run"]["facets"], "spark_jobDetails": [None]}}}
    deep = "[" * 100_000
    lines = [json.dumps(event) for event in [*reversed(events), *strange, unknown, *events]]
    Path(file).write_text("\n".join([*lines, deep, lines[0][: len(lines[0]) // 2]]))
    assert of("champion").as_dict() == before, "twice, turned round, with unknown facets, torn at its end"
    told = capsys.readouterr().err
    assert "5 events left out that are not as OpenLineage has them" in told and "2 torn lines left out" in told
