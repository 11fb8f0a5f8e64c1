"""Canaries in front of one: a good model promoted step by step, a bad one stopped on its way, under steady traffic.

The traffic, and what came of an answer, are simulated (`simulated_traffic`) and say so wherever they show.
The requests, the model servers, the proxy, the metrics and the verdicts are real.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from plumb.demo.simulated_traffic import Traffic, callers
from plumbline import clock
from plumbline.display import terminal
from plumbline.errors import GateFailed
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import services
from plumbline.state import releases
from serving import loaded_model
from serving.client import DemoError
from serving.rollout import driver, following, machinery, state, table
from serving.rollout import page as rollout_page
from training import variants

SIMULATED = "simulated"


def demo(
    product: Product,
    bad: str | None = None,
    good: bool = True,
    per_second: float = 120.0,
    keep: bool = False,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Rolls out a good model (unless not `good`), then the bad one (default: the first) or `all` of them; what became
    of each.

    Prints it as a table too, unless `quiet`, and writes the rollouts' page.

    Raises DemoError for an unknown bad model, or when a good one is aborted or a bad one is not.
    """
    known = variants.bad(product)
    kinds = known if bad == "all" else (bad or known[0],)
    if unknown := set(kinds) - set(known):
        raise DemoError(f"no bad model {', '.join(unknown)}: there are {', '.join(known)}, all")
    releases.required(product.name)
    begun, already_up = clock.monotonic(), services.running()
    ended: list[dict[str, Any]] = []
    try:
        for kind in ([variants.GOOD] if good else []) + list(kinds):
            made = variants.register(product, kind)
            say(f"version {made['version']}, {kind}: {made['what']}")
            before = clock.monotonic()
            status = roll_out(product, made["version"], {}, per_second, refuse=False)
            ended.append(_told(made, status, clock.monotonic() - before))
        page = rollout_page.write(product)
        if not quiet:
            _show(ended, clock.monotonic() - begun, page)
    finally:
        if not keep:
            stopped = services.stop_all(keep=already_up)
            say(f"stopped {', '.join(stopped)}" if stopped else "the servers that were running stay up: `make down`")
    wrong = [item for item in ended if (item["phase"] == "Healthy") != (item["variant"] == variants.GOOD)]
    if wrong:
        raise DemoError(
            "; ".join(f"version {item['version']} ({item['variant']}): {item['verdict']}" for item in wrong)
        )
    return ended


def roll_out(
    product: Product, model: str, args: Mapping[str, str], per_second: float = 0.0, refuse: bool = True
) -> Any:
    """Rolls a model out, with so many simulated requests a second; the rollout's last status.

    When another driver lives, it is asked to take this model instead, and followed. Raises Aborted when the rollout
    was (unless not `refuse`).
    """
    driver.recover(product)
    if state.driven(product):
        version = loaded_model.find(product, model)
        if version is None:
            raise DemoError(f"there is no {model!r} to roll out")
        following.ask(product, state.REPLACE, version=str(version.version))
        return following.follow(product)
    driven = machinery.of(product)
    with table.live() as shown:
        paced = driver.paced(per_second) if per_second else driver.LAPTOP
        driving = driver.Driver(driven, {**paced, **args}, shown, SIMULATED if per_second else None)
        where = driven.up()
        say("; ".join(f"{what} {address}" for what, address in where.items()))
        try:
            with _callers(product, where[product.host], per_second):
                return driving.run(model)
        except GateFailed:
            if refuse:
                raise
            return driving.status


@contextmanager
def _callers(product: Product, url: str, per_second: float) -> Iterator[Traffic | None]:
    if not per_second:
        yield None
        return
    say(f"{SIMULATED} traffic: {per_second:g} requests a second, with {SIMULATED} outcomes")
    traffic = Traffic(url, per_second, callers(product))
    try:
        with traffic:
            yield traffic
    finally:
        _tell(traffic)


def _tell(traffic: Traffic) -> None:
    told = ", ".join(f"{count:,} of status {status}" for status, count in sorted(traffic.statuses().items()))
    say(f"{SIMULATED} traffic: {told}")


def _told(made: Mapping[str, Any], status: Any, seconds: float) -> dict[str, Any]:
    return {
        "variant": made["variant"],
        "version": made["version"],
        "what": made["what"],
        "phase": status.phase,
        "reached": max((item["canary"] for item in status.weights), default=0),
        "exposed": status.exposed,
        "seconds": round(seconds, 1),
        "verdict": status.message,
        "traffic": SIMULATED,
    }


def _show(ended: list[dict[str, Any]], seconds: float, page: Any) -> None:
    made = terminal.table(
        f"Canaries, under {SIMULATED} traffic", "model", "how it ended", "reached", "requests it saw", "s", "verdict",
        right=("reached", "requests it saw", "s"),
    )  # fmt: skip
    for item in ended:
        color = "green" if item["phase"] == "Healthy" else "red"
        made.add_row(
            f"version {item['version']}, {item['variant']}: {item['what']}",
            f"[{color}]{'promoted' if item['phase'] == 'Healthy' else 'aborted'}[/{color}]",
            f"{item['reached']} %",
            f"{item['exposed']:,}",
            f"{item['seconds']:.0f}",
            item["verdict"],
        )
    console = terminal.console(150)
    console.print(made)
    console.print(f"  {seconds:.0f} s in all; weights, KPIs and verdicts over time: {page}", soft_wrap=True)
