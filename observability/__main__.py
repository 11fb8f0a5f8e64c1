"""`python -m observability` writes the generated files; `--check` fails when they differ from what is committed."""

from __future__ import annotations

import argparse
import sys

from observability import generated
from plumbline.errors import PlumblineError


def main() -> None:
    """Exit code 1 with the paths when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m observability", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    try:
        if parser.parse_args().check:
            print(generated.check())
        else:
            print("written: " + (", ".join(generated.write()) or "nothing, all is up to date"))
    except PlumblineError as error:
        sys.exit(f"observability: {error}")


if __name__ == "__main__":
    main()
