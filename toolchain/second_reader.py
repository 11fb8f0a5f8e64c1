"""The contracts as another program reads them: `datacontract-cli`, in an environment of its own (`make lint`).

Runs in that environment, so it imports nothing of ours: `<home>/venvs/contracts/bin/python toolchain/second_reader.py
contracts/*.odcs.yaml`. Exit code 1 names each file that it does not take, the place in it and why.
"""

from __future__ import annotations

import logging
import sys


def main(files: list[str]) -> int:
    """How many of the files it does not take, as an exit code."""
    from datacontract.data_contract import DataContract  # type: ignore[import-not-found]
    from datacontract.model.run import ResultEnum  # type: ignore[import-not-found]

    logging.disable(logging.CRITICAL)  # what it logs of a file that it does not take is in its answer
    broken = []
    for file in files:
        run = DataContract(data_contract_file=file).lint()
        broken += [f"{file}: {check.name}: {check.reason}" for check in run.checks if check.result != ResultEnum.passed]
    print("\n".join(broken) or f"datacontract-cli takes all {len(files)} contracts")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
