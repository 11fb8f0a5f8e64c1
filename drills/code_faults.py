"""Faults as a change of the code brings them: somebody edits a copy of the tree, and its DAGs run."""

from __future__ import annotations

from pathlib import Path

from drills import ground
from drills.drill import Drilling
from plumbline.errors import PlumblineError

SQL = "feature_repo/churn/jobs/customers.sql"
DATASET = "training/churn/dataset.py"


def edit(tree: Path, name: str, old: str, new: str) -> None:
    """Replaces the one place in a file. Raises PlumblineError when the file has changed under the drill."""
    text = (tree / name).read_text()
    if text.count(old) != 1:
        raise PlumblineError(f"{name}: expected {old!r} once, found it {text.count(old)} times: mend the drill")
    (tree / name).write_text(text.replace(old, new))


def leaky_feature(drilling: Drilling) -> None:
    """Somebody adds a feature that joins all orders, those behind the snapshot too."""

    def change(tree: Path) -> None:
        edit(
            tree,
            SQL,
            "AS last_order_day\nFROM totals",
            "AS last_order_day,\n"
            "    CAST(coalesce(newest <= snapshot_date, true) AS INT) AS reason_for_cancellation\n"
            "FROM totals\n"
            "LEFT JOIN (SELECT customer_id, max(order_date) AS newest FROM {orders} GROUP BY customer_id) AS later\n"
            "    USING (customer_id)",
        )

    ground.another_tree(drilling.folder, change)


def leaky_encoding(drilling: Drilling) -> None:
    """Somebody encodes a feature by the label, over all rows, and trains; the day before it runs as it should."""

    def change(tree: Path) -> None:
        labelled = '    answer["churned"] = churned(orders_version, answer)\n'
        encoded = '    answer["avg_ticket"] = answer.groupby("churned")["avg_ticket"].transform("mean")\n'
        edit(tree, DATASET, labelled, labelled + encoded)

    ground.another_tree(drilling.folder, change)
    if not drilling.run():
        raise PlumblineError("the day did not come to its end: the drill cannot begin")
    drilling.looked()


def trained_on_it(drilling: Drilling) -> bool:
    """Training, with the changed code."""
    return drilling.run_changed(ground.TRAINING)


def trained_without(drilling: Drilling) -> bool:
    """Training, with the change taken back."""
    return drilling.run(ground.TRAINING)


def other_rounding(drilling: Drilling) -> None:
    """Somebody rounds a feature on its way into Redis, and only there."""

    def change(tree: Path) -> None:
        edit(
            tree,
            "feature_repo/materialize.py",
            "    store = feature_store.at_release(CHURN, release)\n",
            "    store = feature_store.at_release(CHURN, release)\n"
            "    view = store.get_feature_view(CHURN.view)\n"
            "    options = view.batch_source.spark_options\n"
            "    options.query = options.query.replace(\n"
            '        "SELECT * FROM",\n'
            '        "SELECT * EXCEPT (avg_ticket), CAST(round(avg_ticket) AS FLOAT) AS avg_ticket FROM",\n'
            "    )\n"
            "    store.registry.apply_feature_view(view, store.project)\n",
        )

    ground.another_tree(drilling.folder, change)


def the_day_with_it(drilling: Drilling) -> bool:
    """The day's run, with the changed code."""
    return drilling.run_changed()
