"""What a definition may not read: anything but its tables."""

from __future__ import annotations

import pytest

from plumbline.lake.repeatable import depends_on
from plumbline.settings import ROOT

NOT_REPEATABLE = {
    "the wall clock": [
        "SELECT datediff(current_date(), signed_up_on) FROM c",
        "SELECT datediff(CURRENT_DATE, signed_up_on) FROM c",
        "SELECT now() FROM c",
        "SELECT `now`() FROM c",
        "SELECT system.builtin.now() FROM c",
        "SELECT curdate ( ) FROM c",
        "SELECT unix_timestamp() FROM c",
        "SELECT localtimestamp FROM c",
        "SELECT DATE 'today' - signed_up_on FROM c",
        "SELECT timestamp_ltz ' now ' FROM c",
        "SELECT a /* now() is read below */, current_timestamp FROM c",
    ],
    "a random number": ["SELECT rand(7) FROM c", "SELECT uuid() FROM c", "SELECT shuffle(a) FROM c"],
    "the session": [
        "SELECT current_user FROM c",
        "SELECT current_timezone() FROM c",
        "SELECT reflect('java.lang.System', 'currentTimeMillis') FROM c",
    ],
    "how the rows happen to lie": [
        "SELECT first(units) FROM c GROUP BY a",
        "SELECT last_value(units) OVER (PARTITION BY a) FROM c",
        "SELECT monotonically_increasing_id() FROM c",
    ],
}
REPEATABLE = [
    "SELECT date_sub(snapshot_date, 7) FROM {snapshots}",
    "SELECT unix_timestamp(known_at) FROM c",
    "SELECT 'now()' AS said, \"current_date\" FROM c -- current_date()",
    "SELECT known AS current_date, o.current_date, first, last FROM o",
    "SELECT first(units) OVER (PARTITION BY a ORDER BY known_at) FROM c",
    "SELECT first(units) FILTER (WHERE units > 0) OVER (PARTITION BY a ORDER BY known_at) FROM c",
    "SELECT first(units) IGNORE NULLS OVER (ORDER BY known_at) FROM c",
]


@pytest.mark.parametrize(
    ("source", "sql"), [(source, sql) for source, texts in NOT_REPEATABLE.items() for sql in texts]
)
def test_what_reads_more_than_its_tables_is_named(source: str, sql: str) -> None:
    assert [phrase.partition(" (")[0] for phrase in depends_on(sql)] == [source], sql


@pytest.mark.parametrize("sql", REPEATABLE)
def test_what_reads_its_tables_alone_passes(sql: str) -> None:
    assert depends_on(sql) == []


def test_every_definition_of_this_repository_passes() -> None:
    paths = [*ROOT.glob("dbt/models/**/*.sql"), *ROOT.glob("feature_repo/**/*.sql")]
    assert len(paths) > 5
    assert {path.name: depends_on(path.read_text()) for path in paths} == {path.name: [] for path in paths}
