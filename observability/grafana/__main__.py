"""`python -m observability.grafana`: writes the dashboards; with --check says which are not what the code gives."""

from __future__ import annotations

import sys

from observability.grafana import generate

if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        generate.write()
    elif stale := generate.stale():
        sys.exit(
            f"not what the code and the contracts give: {', '.join(stale)}; `python -m observability.grafana` writes it"
        )
