"""`python -m bench [NAME …]`: measures, and writes docs/benchmarks.{md,json} and the picture. `make bench` runs all.

Names: stages, online_read, predictions, materialization, rollout, join, history, images, events. The first makes the
home that the next four read; rollout writes docs/rollout.md's table too. Some 30 minutes on two cores; numbers of
benchmarks that are not named are kept. By its name alone: events_long, ten million events through the stream.
"""

from __future__ import annotations

import argparse
import importlib

from bench import measured, page
from plumbline import clock
from plumbline.progress import say

ALONE = ("events_long",)
"""Benchmarks that run by their name alone."""

NAMES = ("stages", "online_read", "predictions", "materialization", "rollout", "join", "history", "images", "events")


def main() -> None:
    """Runs the benchmarks that are named, all by default."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of " + ", ".join(NAMES))
    names = parser.parse_args().names or NAMES
    if unknown := set(names) - {*NAMES, *ALONE}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join((*NAMES, *ALONE))}")
    if set(names) & set(NAMES[1:5]) and "stages" not in names and not (measured.HOME / "demo" / "releases").exists():
        parser.error("no demo to read yet: name `stages` too")
    found, machine = page.read(), measured.machine()
    if set(names) == set(NAMES):
        found |= {"machine": machine, "machines": {}}
    found.setdefault("machine", machine)
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        say(f"{name}: {(module.__doc__ or name).splitlines()[0]}")
        begun = clock.monotonic()
        found[name] = module.measure()
        if found["machine"] != machine:  # the others' numbers are of another day or machine
            found.setdefault("machines", {})[name] = machine
        say(f"{name}: measured in {clock.monotonic() - begun:.0f} s")
        page.write(found)
    print(page.text(found))


if __name__ == "__main__":
    main()
