"""Faults as a change of the code brings them: somebody edits a copy of the tree, and its DAGs run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drills import ground, shop_faults
from drills.drill import Drilling
from plumbline.errors import PlumblineError
from products.churn import CHURN


@dataclass(frozen=True)
class Edit:
    """One place of a file below the repository, and what somebody writes there."""

    file: str
    old: str
    new: str

    def apply(self, tree: Path) -> None:
        """Replaces the one place in a copy of the tree. Raises PlumblineError when the file has another text there."""
        text = (tree / self.file).read_text()
        if (places := text.count(self.old)) != 1:
            raise PlumblineError(f"{self.file}: expected {self.old!r} once, not {places} times: mend the drill")
        (tree / self.file).write_text(text.replace(self.old, self.new))


LEAKY_FEATURE = Edit(
    "feature_repo/churn/jobs/customers.sql",
    "AS last_order_day\nFROM totals",
    "AS last_order_day,\n"
    "    CAST(coalesce(newest <= snapshot_date, true) AS INT) AS reason_for_cancellation\n"
    "FROM totals\n"
    "LEFT JOIN (SELECT customer_id, max(order_date) AS newest FROM {orders} GROUP BY customer_id) AS later\n"
    "    USING (customer_id)",
)
WALL_CLOCK = Edit(
    "feature_repo/churn/jobs/customers.sql",
    "AS last_order_day\nFROM totals",
    "AS last_order_day,\n    CAST(datediff(current_date(), signed_up_on) AS INT) AS age_days\nFROM totals",
)
CORRECTED_TWICE = Edit(
    "feature_repo/churn/jobs/customers.py",
    '        base = base.where(~base["customer_id"].isin(list(anew)))\n',
    "        pass\n",
)
LEAKY_ENCODING = Edit(
    "training/churn/dataset.py",
    '    answer["churned"] = churned(orders_version, answer)\n',
    '    answer["churned"] = churned(orders_version, answer)\n'
    '    answer["avg_ticket"] = answer.groupby("churned")["avg_ticket"].transform("mean")\n',
)


def rounded_on_the_way(feature: str, rounded: str) -> Edit:
    """A feature of the product's first view gets into Redis as that expression says, and only there."""
    return Edit(
        "feature_repo/materialize.py",
        "    store = feature_store.at_release(product, release)\n",
        "    store = feature_store.at_release(product, release)\n"
        "    view = store.get_feature_view(product.view)\n"
        "    options = view.batch_source.spark_options\n"
        "    options.query = options.query.replace(\n"
        '        "SELECT * FROM",\n'
        f'        "SELECT * EXCEPT ({feature}), {rounded} AS {feature} FROM",\n'
        "    )\n"
        "    store.registry.apply_feature_view(view, store.project)\n",
    )


OTHER_ROUNDING = rounded_on_the_way("avg_ticket", "CAST(round(avg_ticket) AS FLOAT)")


def leaky_feature(drilling: Drilling) -> None:
    """Somebody adds a feature that joins all orders, those behind the snapshot too."""
    ground.another_tree(drilling.folder, LEAKY_FEATURE.apply)


def wall_clock(drilling: Drilling) -> None:
    """Somebody adds a feature that reads the wall clock."""
    ground.another_tree(drilling.folder, WALL_CLOCK.apply)


def corrected_twice(drilling: Drilling) -> None:
    """Somebody's tidying leaves the old totals of customers whose orders were corrected in the base; two orders are."""
    shop_faults.corrected()
    ground.another_tree(drilling.folder, CORRECTED_TWICE.apply)


def leaky_encoding(drilling: Drilling) -> None:
    """Somebody encodes a feature by the label, over all rows, and trains; the day before it runs as it should."""
    ground.another_tree(drilling.folder, LEAKY_ENCODING.apply)
    if not drilling.run():
        raise PlumblineError("the day did not come to its end: the drill cannot begin")
    drilling.looked()


def trained_on_it(drilling: Drilling) -> bool:
    """Training, with the changed code."""
    return drilling.run_changed(CHURN.training)


def trained_without(drilling: Drilling) -> bool:
    """Training, with the change taken back."""
    return drilling.run(CHURN.training)


def other_rounding(drilling: Drilling) -> None:
    """Somebody rounds a feature on its way into Redis, and only there."""
    ground.another_tree(drilling.folder, OTHER_ROUNDING.apply)


def the_day_with_it(drilling: Drilling) -> bool:
    """The day's run, with the changed code."""
    return drilling.run_changed()
