"""The page of rollouts, from what a driver leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plumbline import clock, files
from products.churn import CHURN
from products.images import IMAGES
from serving.rollout import page as rollout_page
from serving.rollout import state

AT = "2026-01-05T10:00:{:02d}.000000+00:00"


def told(number: int, phase: str, weights: list[int], **more: Any) -> dict[str, Any]:
    """A rollout of a minute: a weight every ten seconds, a sample a second."""
    kpi = {"difference": -0.01, "lower": -0.05, "upper": 0.03, "p_value": 0.4, "canary": 90.0, "stable": 800.0}
    return {
        "number": number,
        "stable": {"version": "1", "revision": "aaaa"},
        "canary": {"version": str(number + 1), "revision": "bbbb"},
        "steps": ["weight 10 %"],
        "args": {},
        "begun_at": AT.format(0),
        "ended_at": AT.format(55) if phase in ("Healthy", "Aborted") else None,
        "phase": phase,
        "message": "why it ended <so>",
        "exposed": 1234,
        "traffic": "simulated",
        "weights": [{"at": AT.format(5 + 10 * n), "canary": w, "why": f"step {n}"} for n, w in enumerate(weights)],
        "measurements": [
            {"at": AT.format(9), "step": 1, "weight": 10, "metric": "error-rate", "phase": p, "value": v, "message": m}
            for p, v, m in (("Successful", 0.0, "0"), ("Failed", 0.5, "0.5, expected result[0] <= 0.02"))
        ],
        "samples": [
            {"at": AT.format(n), "weight": 10, "stable": 90 * n, "canary": 10 * n, "kpis": {"conversion_rate": kpi}}
            for n in range(1, 50)
        ],
        **more,
    }


@pytest.fixture
def page(home: Path) -> str:
    for number, (phase, weights) in enumerate(
        [("Healthy", [10, 25, 50, 100]), ("Aborted", [10, 0]), ("Progressing", [10]), ("Aborted", [])], start=1
    ):
        made = told(number, phase, weights, **({} if weights else {"samples": [], "measurements": []}))
        files.write_whole(home / "rollouts" / "churn" / f"{number:04d}.json", files.dumps(made))
    return rollout_page.write(CHURN).read_text()


def test_each_rollout_is_shown_with_its_verdict_and_where_it_fell(page: str) -> None:
    assert page.index('id="4"') < page.index('id="1"')
    assert page.count(">aborted<") == 2 + 2 and page.count(">promoted<") == 1 + 2  # headings, and in pictures
    assert page.count("1,234") == 4
    assert "why it ended &lt;so&gt;" in page
    assert page.count("Canary&#39;s share") + page.count("Canary's share") == 3
    assert page.count("conversion_rate: canary − stable (simulated)") == 3


def test_a_guardrails_bad_readings_are_counted(page: str) -> None:
    assert page.count('<td><code>error-rate</code></td><td class="n">2</td><td class="n bad">1</td>') == 3


def test_simulated_numbers_say_so(page: str) -> None:
    assert page.count("Requests and outcomes are simulated") == 4


def test_each_product_has_rollouts_and_a_page_of_its_own(home: Path) -> None:
    made = told(1, "Aborted", [10, 0])
    for sample in made["samples"]:
        sample["kpis"] = {"agreement_rate": sample["kpis"]["conversion_rate"]}
    files.write_whole(home / "rollouts" / "images" / "0001.json", files.dumps({**made, "product": "images"}))
    page = rollout_page.write(IMAGES).read_text()
    assert "agreement_rate: canary − stable (simulated)" in page and "k8s/images/base/rollout.yaml" in page
    assert "the KPIs say nothing about real images" in page
    assert "Nothing was rolled out here yet" in rollout_page.write(CHURN).read_text()
    assert [found.number for found in state.everyone(IMAGES)] == [1] and state.newest(CHURN) is None


def test_a_rollout_from_before_there_were_products_is_its_folders(home: Path) -> None:
    files.write_whole(home / "rollouts" / "churn" / "0001.json", files.dumps(told(1, "Healthy", [10, 100])))
    found = state.newest(CHURN)
    assert found and (found.product, found.number, found.phase) == ("churn", 1, "Healthy")


def test_without_a_rollout_the_page_says_how_to_get_one(home: Path) -> None:
    assert clock.is_replay()
    assert "plumb demo-canary" in rollout_page.write(CHURN).read_text()
