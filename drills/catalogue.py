"""All drills, in the order in which `make drill` runs them; controls without a fault stand between them."""

from __future__ import annotations

from collections.abc import Callable

from drills import code_faults, picture_faults, pictures, process_faults, shop_faults, store_faults
from drills.drill import Drill, Drilling

SOURCE = "the pictures' folder"
SHOP, TREE, PROCESS, STORE, LAKE, DISK, CLOCK = (
    "the shop's database",
    "a file of the tree",
    "a process",
    "Redis",
    "the lake",
    "the disk",
    "the clock",
)
AGAIN = "mend it in the shop; run the day again"


def _nothing(drilling: Drilling) -> None:
    """No fault before the run: it comes while the run is at work, or not at all."""


def _in_shop(fault: Callable[[], shop_faults.Mend]) -> Callable[[Drilling], None]:
    def inject(drilling: Drilling) -> None:
        drilling.mend = fault()

    return inject


def _shop(
    name: str,
    fault: Callable[[], shop_faults.Mend],
    stopped_by: str,
    recovery: str = AGAIN,
    holds: Callable[[Drilling], list[str]] = lambda drilling: [],
) -> Drill:
    told = (fault.__doc__ or name).partition("\n")[0].rstrip(".")
    return Drill(name, told, SHOP, stopped_by, recovery, _in_shop(fault), holds=holds)


DRILLS = [
    Drill("clean-day", "none: a Tuesday like any other (control)", "–", "", "–", _nothing),
    _shop("renamed-column", shop_faults.renamed_column, "ingest: schema_contract"),
    _shop("null-ids", shop_faults.null_ids, "ingest: record_contract"),
    _shop("negative-amounts", shop_faults.negative_amounts, "ingest: record_contract"),
    _shop("future-dates", shop_faults.future_dates, "ingest: record_contract"),
    _shop("dollars-for-cents", shop_faults.dollars, "ge_check: orders_expectations"),
    _shop("added-column", shop_faults.added_column, "", "–"),
    _shop("drifted-units", shop_faults.drifted, "distribution_check: orders_shift"),
    _shop("duplicated-batch", shop_faults.twice, "distribution_check: orders_repeated"),
    _shop("half-a-batch", shop_faults.half, "distribution_check: orders_volume"),
    _shop("late-day", shop_faults.nothing, "ingest: daily_rows", "wait for the orders; run the day again"),
    _shop("too-many-units", shop_faults.too_many_units, "ingest: record_contract"),
    _shop("reserved-column", shop_faults.reserved_column, "ingest: schema_contract"),
    _shop("deleted-orders", shop_faults.deleted, "ingest: rows_deleted"),
    _shop("corrected-orders", shop_faults.corrected, "", "–", shop_faults.totals_are_the_shops),
    Drill(
        "corrected-twice",
        "A change of the code keeps old totals of customers whose orders get corrected: they would count twice",
        TREE,
        "features: features_carried",
        "take the change back; run the day again",
        code_faults.corrected_twice,
        code_faults.the_day_with_it,
        holds=shop_faults.totals_are_the_shops,
    ),
    Drill(
        "wall-clock",
        "A new feature `age_days` reads the wall clock",
        TREE,
        "features: features_knowable",
        "take the change back; run the day again",
        code_faults.wall_clock,
        code_faults.the_day_with_it,
    ),
    Drill(
        "leaky-column",
        "A new feature `reason_for_cancellation` knows whether the customer came back",
        TREE,
        "features: features_knowable",
        "take the change back; run the day again",
        code_faults.leaky_feature,
        code_faults.the_day_with_it,
    ),
    Drill(
        "leaky-encoding",
        "A feature becomes its mean over customers who left and who stayed: an encoding that saw the label",
        TREE,
        "leakage_check: target_leakage, temporal_leakage",
        "take the change back; run training again",
        code_faults.leaky_encoding,
        code_faults.trained_on_it,
        code_faults.trained_without,
    ),
    Drill(
        "skewed-rounding",
        "A feature is rounded on its way into Redis, and only there",
        TREE,
        "parity_check: parity",
        "take the change back; `plumb materialize`, `plumb parity_check`",
        code_faults.other_rounding,
        code_faults.the_day_with_it,
        process_faults.materialized_anew,
        refuses=True,
    ),
    Drill(
        "expired-features",
        "Nothing runs for 15 days, the features' ttl is 14",
        CLOCK,
        "predictor: answers 503",
        "one run over all the days",
        _nothing,
        process_faults.weeks_pass,
        process_faults.catches_up,
        refuses=True,
    ),
    Drill(
        "evicted-row",
        "Redis throws a customer's row away, as `allkeys-lru` does when memory is short",
        STORE,
        "predictor: answers 503",
        "`plumb materialize`",
        store_faults.evicted,
        process_faults.asked,
        store_faults.written_again_then_the_day,
        refuses=True,
    ),
    Drill(
        "half-a-row",
        "All features of a customer's row in Redis are gone; its time and release are there",
        STORE,
        "predictor: answers 503",
        "`plumb materialize`",
        store_faults.half_a_row,
        process_faults.asked,
        store_faults.written_again_then_the_day,
        refuses=True,
    ),
    Drill(
        "strangers-in-redis",
        "Another project keeps rows of the same entity and view in the same Redis",
        STORE,
        "",
        "–",
        store_faults.strangers_in_redis,
        holds=store_faults.strangers_are_as_they_were,
    ),
    Drill(
        "stray-rows",
        "Somebody appends rows to `raw.orders` with a library of their own",
        LAKE,
        "ingest: gate_failed",
        "restore the version before; run the day again",
        store_faults.stray_rows,
    ),
    Drill(
        "lost-data-file",
        "A data file of `raw.orders` is gone: a clean-up that knew no Delta",
        LAKE,
        "ingest: fail",
        "bring it back from a copy; run the day again",
        store_faults.lost_data_file,
    ),
    Drill(
        "altered-model",
        "One byte of the challenger's file changes",
        DISK,
        "deploy: exit code 3",
        "the day; `plumb train`, `plumb register` for its release again; deploy the new challenger",
        process_faults.altered_model,
        process_faults.deployed,
        process_faults.trained_anew,
    ),
    Drill(
        "disk-full",
        "The lake's disk (a tmpfs) has 64 KiB left",
        DISK,
        "dbt_run: fail",
        "make room; run the day again",
        process_faults.disk_full,
    ),
    Drill(
        "stage-killed",
        "`plumb features` dies by SIGKILL with its data written and not committed",
        PROCESS,
        "features: killed",
        "none: the task's second try",
        _nothing,
        process_faults.stage_killed,
        goes_on=True,
    ),
    Drill(
        "redis-killed",
        "Redis dies by SIGKILL in mid-materialization",
        STORE,
        "materialize: fail",
        "none: the task's second try",
        _nothing,
        process_faults.redis_killed,
        goes_on=True,
    ),
    Drill(
        "two-runs",
        "Somebody starts a stage in a shell while the DAG runs it",
        PROCESS,
        "the second dbt_run: exit code 5",
        "none: the first run goes on",
        _nothing,
        process_faults.two_runs,
        goes_on=True,
    ),
    Drill("clean-day-again", "none: the same Tuesday (control)", "–", "", "–", _nothing),
]


DATASET_AGAIN = "take the change back; run the day again"

PICTURES = [
    Drill("clean-pictures", "none: 250 more pictures (control)", "–", "", "–", _nothing, on=pictures.GROUND),
    Drill(
        "near-duplicates",
        "The split goes by picture instead of by group, and sixty pictures came again, a shade brighter",
        TREE,
        "leakage_check: near_duplicates",
        DATASET_AGAIN,
        picture_faults.near_duplicates,
        code_faults.the_day_with_it,
        on=pictures.GROUND,
    ),
    Drill(
        "augmented-copies",
        "Pictures are copied before the split, and the copies land on any side",
        TREE,
        "leakage_check: augmented_copies, near_duplicates",
        DATASET_AGAIN,
        picture_faults.augmented_copies,
        code_faults.the_day_with_it,
        on=pictures.GROUND,
    ),
    Drill(
        "camera-of-a-class",
        "The day's pictures are photos, and each digit had a camera of its own (EXIF)",
        SOURCE,
        "leakage_check: metadata_leakage",
        "undo the release, bring the pictures without it; run the day again",
        picture_faults.camera,
        on=pictures.GROUND,
    ),
    Drill(
        "later-labels",
        "Labels of today get into a dataset of yesterday: the code takes the newest ones",
        TREE,
        "leakage_check: label_time",
        "take the change back; build the dataset again",
        picture_faults.later_labels,
        picture_faults.dataset_of_the_eve,
        picture_faults.dataset_of_the_eve_again,
        on=pictures.GROUND,
    ),
    Drill(
        "broken-pictures",
        "Fifteen of the day's files are truncated, renamed, or texts",
        SOURCE,
        "",
        "–",
        picture_faults.broken,
        on=pictures.GROUND,
        holds=picture_faults.all_are_set_aside,
    ),
    Drill(
        "evicted-embedding",
        "Redis throws a picture's row away, as `allkeys-lru` does when memory is short",
        STORE,
        "predictor: answers 503",
        "`plumb images materialize`",
        store_faults.evicted,
        process_faults.asked,
        store_faults.written_again_then_the_day,
        on=pictures.GROUND,
        refuses=True,
    ),
    Drill(
        "skewed-embedding",
        "Embeddings are rounded on their way into Redis, and only there",
        TREE,
        "parity_check: parity",
        "take the change back; `plumb images materialize`, `plumb images parity_check`",
        picture_faults.other_embeddings,
        code_faults.the_day_with_it,
        process_faults.materialized_anew,
        on=pictures.GROUND,
        refuses=True,
    ),
]

ALL = [*DRILLS, *PICTURES]


def named(name: str) -> Drill:
    """A drill by its name. Raises PlumblineError that lists the names there are."""
    from plumbline.errors import PlumblineError

    for drill in ALL:
        if drill.name == name:
            return drill
    raise PlumblineError(f"no drill {name!r}; there are {', '.join(drill.name for drill in ALL)}")
