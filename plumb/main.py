"""`plumb`: one command a stage, the same in a shell, in an Airflow task and in a pod."""

from __future__ import annotations

import re
import signal
import sys
from typing import Annotated, NoReturn

import typer

from plumb.commands import daily, parity, gate, model, trust, data, events  # isort: skip # noqa: F401 - as in --help
from plumb.commands import release_history, contracts, why, house, drills  # isort: skip # noqa: F401
from plumb.commands import erase, lineage, watch  # isort: skip # noqa: F401
from plumb.commands import business, judge, promote, rollout  # isort: skip # noqa: F401
from plumb.commands import images, image_model  # isort: skip # noqa: F401
from plumb.commands.base import app
from plumbline.errors import PlumblineError, ServiceUnavailable

TERMINATED = 143


def main() -> None:
    """Runs the command line; an error of ours becomes one message and its exit code.

    SIGTERM ends a command as Ctrl-C does: what it started is stopped, and the ledger hears of it.
    """
    if "serve" not in sys.argv[1:3]:  # which drains first, by handlers of its own
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        app()
    except PlumblineError as error:
        _fail(error)
    except Exception as error:
        from plumbline import causes

        if known := causes.explained(error):
            _fail(known)
        if told := _of_spark(error) or _of_mlflow(error):
            _fail(told)
        raise
    except KeyboardInterrupt:
        print("plumb: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _fail(error: PlumblineError) -> NoReturn:
    print(f"plumb: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _of_spark(error: Exception) -> PlumblineError | None:
    """The first line of an error that Spark raised, None for any other: its plans and traces fill screens."""
    errors = sys.modules.get("pyspark.errors.exceptions.base")
    if errors is None or not isinstance(error, errors.PySparkException):
        return None
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return PlumblineError(f"Spark: {first[:600]}")


def _of_mlflow(error: Exception) -> PlumblineError | None:
    """The first line of an error that MLflow raised, without the login that its server's URL may hold."""
    errors = sys.modules.get("mlflow.exceptions")
    if errors is None or not isinstance(error, errors.MlflowException):
        return None
    told = "MLflow: " + re.sub(r"://[^@/]*@", "://***@", str(error).partition("\n")[0])[:600]
    return ServiceUnavailable(told) if "API request" in told else PlumblineError(told)


def _version(asked: bool) -> None:
    if asked:
        from plumbline import __version__

        print(f"plumb {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    from plumb import home

    home.close_to_others()
    home.upgrade()


if __name__ == "__main__":
    main()
