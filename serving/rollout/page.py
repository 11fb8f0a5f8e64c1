"""The page of rollouts: weights over time, KPIs with their confidence sequences, and the moment of each verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from plumbline.display import figures, page
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import objects
from serving.rollout import state

SHOWN = 12
"""Rollouts on the page, the newest first."""

COLORS = {"Healthy": "good", "Aborted": "bad"}


def write(product: Product) -> Path:
    """Writes `<home>/report/<product>/rollouts.html` from what drivers left; its path."""
    told = [objects.read_json(key) or {} for key in state.keys(product)[::-1][:SHOWN]]
    return page.write(
        settings().home / "report" / product.name / "rollouts.html",
        "rollout.html",
        product=product,
        rollouts=[{**one, "figures": _figures(one, product), "readings": _readings(one)} for one in told],
        colors=COLORS,
    )


def _readings(rollout: dict[str, Any]) -> list[dict[str, Any]]:
    """Each guardrail: how often it was read, how often the reading was bad, and the last one."""
    found: dict[str, dict[str, Any]] = {}
    for item in rollout["measurements"]:
        made = found.setdefault(item["metric"], {"metric": item["metric"], "count": 0, "bad": 0})
        made.update(message=item["message"], weight=item["weight"], count=made["count"] + 1)
        made["bad"] += item["phase"] != "Successful"
    return list(found.values())


def _figures(rollout: dict[str, Any], product: Product) -> list[str]:
    if not rollout["samples"]:
        return []
    begun = datetime.fromisoformat(rollout["begun_at"])
    ended = _since(begun, rollout["ended_at"]) if rollout["ended_at"] else _since(begun, rollout["samples"][-1]["at"])
    drawn = [_weights(rollout, begun, ended)]
    for kpi in (kpi.name for kpi in product.kpis):
        points = [
            (_since(begun, sample["at"]), sample["kpis"][kpi])
            for sample in rollout["samples"]
            if {"difference", "lower", "upper"} <= set(sample["kpis"].get(kpi, {}))
        ]
        if points:
            drawn.append(_kpi(rollout, kpi, points, begun, ended))
    return drawn


def _weights(rollout: dict[str, Any], begun: datetime, ended: float) -> str:
    changes = [(0.0, 0), *((_since(begun, item["at"]), item["canary"]) for item in rollout["weights"])]
    if rollout["phase"] == "Healthy":
        changes.append((ended, 100))
    times, weights = [at for at, _ in changes], [weight for _, weight in changes]
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(7.4, 2.9), layout="constrained")
        axes.step([*times, ended], [*weights, weights[-1]], where="post", color=figures.MODEL, lw=2, label="weight")
        asked = [(_since(begun, s["at"]), _share(rollout["samples"], n)) for n, s in enumerate(rollout["samples"])]
        seen = [(at, share) for at, share in asked if share is not None]
        axes.plot([a for a, _ in seen], [s for _, s in seen], ".", ms=3, color=figures.SECOND, label="of the requests")
        _verdict(axes, rollout, begun, ended)
        axes.set(
            ylim=(-4, 108), xlim=(0, ended * 1.02), xlabel="seconds", ylabel="% to the canary", title="Canary's share"
        )
        axes.legend(fontsize=8, loc="center left")
        drawn = figures.svg(figure, f"Weight of the canary over {ended:.0f} seconds; it ended {rollout['phase']}")
        plt.close(figure)
    return drawn


def _share(samples: Sequence[dict[str, Any]], number: int, over: int = 3) -> float | None:
    """The canary's share, in percent, of the requests between a sample and the one a few before it."""
    if number < over:
        return None
    was, now = samples[number - over], samples[number]
    canary, stable = now["canary"] - was["canary"], now["stable"] - was["stable"]
    return 100 * canary / (canary + stable) if canary + stable > 0 else None


def _kpi(
    rollout: dict[str, Any], kpi: str, points: list[tuple[float, dict[str, float]]], begun: datetime, ended: float
) -> str:
    times = [at for at, _ in points]
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(7.4, 2.9), layout="constrained")
        lower, upper = [p["lower"] for _, p in points], [p["upper"] for _, p in points]
        axes.fill_between(times, lower, upper, step="post", color=figures.LINE, label="confidence sequence")
        axes.step(times, [p["difference"] for _, p in points], where="post", color=figures.MODEL, label="difference")
        axes.axhline(0, color=figures.MUTED, lw=1)
        _verdict(axes, rollout, begun, ended)
        title = f"{kpi}: canary − stable" + (f" ({rollout['traffic']})" if rollout["traffic"] else "")
        axes.set(xlim=(0, ended * 1.02), xlabel="seconds", title=title)
        # The sequence begins very wide: what is drawn is where it tells something.
        widest = 1.6 * max(max(abs(p["difference"]) for _, p in points), (upper[-1] - lower[-1]) / 2)
        axes.set_ylim(-widest, widest)
        axes.legend(fontsize=8, loc="upper left")
        drawn = figures.svg(figure, f"{kpi}: difference between canary and stable over time, with its bounds")
        plt.close(figure)
    return drawn


def _verdict(axes: Any, rollout: dict[str, Any], begun: datetime, ended: float) -> None:
    """A line where it was decided: the weights went back, or all went to the canary."""
    last = rollout["weights"][-1] if rollout["weights"] else None
    if rollout["phase"] in COLORS and last is not None and last["canary"] in (0, 100):
        at = _since(begun, last["at"])
        color = figures.BAD if rollout["phase"] == "Aborted" else figures.GOOD
        axes.axvline(at, color=color, lw=1.4, ls="--")
        word = "aborted" if rollout["phase"] == "Aborted" else "promoted"
        axes.annotate(
            word, (at, 1), xycoords=("data", "axes fraction"), ha="right", va="top", xytext=(-4, -4),
            textcoords="offset points", color=color, fontsize=9,
        )  # fmt: skip


def _since(begun: datetime, at: str) -> float:
    return (datetime.fromisoformat(at) - begun).total_seconds()
