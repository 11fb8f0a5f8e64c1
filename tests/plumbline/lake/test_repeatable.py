"""What a definition may not read: anything but its tables."""

from __future__ import annotations

import pytest

from plumbline.lake.repeatable import depends_on, tables, templated
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
        'SELECT DATE "today" - signed_up_on FROM c',
        "SELECT DATE /* of */ 'today' FROM c",
        r"SELECT r'\' AS slash, now(), 'x' FROM c",
        "SELECT a -- a comment ends here\r, now() FROM c",
        "SELECT a /* now() is read below */, current_timestamp FROM c",
        "SELECT CAST('now' AS TIMESTAMP) FROM c",
        "SELECT ' Today '::date FROM c",
        "SELECT a FROM c WHERE order_date < 'yesterday'",
        'SELECT to_timestamp("now UTC") FROM c',
    ],
    "a random number": [
        "SELECT rand(7) FROM c",
        "SELECT uuid() FROM c",
        "SELECT shuffle(a) FROM c",
        "SELECT a FROM c TABLESAMPLE (10 PERCENT)",
    ],
    "the session": [
        "SELECT current_user FROM c",
        "SELECT USER FROM c",
        "SELECT current_timezone() FROM c",
        "SELECT reflect('java.lang.System', 'currentTimeMillis') FROM c",
        "SELECT identifier('no' || 'w')() FROM c",
        "SELECT current_path() FROM c",
    ],
    "how the rows happen to lie": [
        "SELECT first(units) FROM c GROUP BY a",
        "SELECT last_value(units) OVER (PARTITION BY a) FROM c",
        "SELECT monotonically_increasing_id() FROM c",
        "SELECT collect_list(a)[0] FROM c GROUP BY b",
        "SELECT array_agg(a) FROM c GROUP BY b",
        "SELECT max_by(a, units) FROM c GROUP BY b",
        "SELECT mode(a) FROM c GROUP BY b",
        "SELECT nth_value(a, 2) OVER (PARTITION BY b) FROM c",
        "SELECT first(a) OVER (PARTITION BY b ORDER BY 1) FROM c",
        "SELECT row_number() OVER (PARTITION BY b ORDER BY (SELECT 1)) FROM c",
        "SELECT row_number() OVER w FROM c WINDOW w AS (PARTITION BY b ORDER BY NULL)",
        "SELECT first_value(a) OVER w FROM c WINDOW w AS (PARTITION BY b)",
        "SELECT sum(a) OVER (PARTITION BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM c",
        "SELECT * FROM (SELECT a FROM c LIMIT 5) ORDER BY a",
        "SELECT a FROM c OFFSET 5",
        "SELECT o._metadata.row_index FROM o",
        "SELECT row_number() OVER (PARTITION BY b ORDER BY -1) FROM c",
    ],
}
REPEATABLE = [
    "SELECT date_sub(snapshot_date, 7) FROM {snapshots}",
    "SELECT unix_timestamp(known_at) FROM c",
    "SELECT 'now()' AS said, \"current_date\" FROM c -- current_date()",
    "SELECT known AS current_date, o.current_date, first, last FROM o",
    "SELECT first(units) OVER (PARTITION BY a ORDER BY known_at) FROM c",
    "SELECT first(units) FILTER (WHERE units > 0) OVER (PARTITION BY a ORDER BY known_at) FROM c",
    "SELECT first_value(a) OVER w FROM c WINDOW w AS (PARTITION BY b ORDER BY known_at)",
    "SELECT row_number() OVER (PARTITION BY b ORDER BY known_at DESC) FROM c",
    "SELECT sum(a) OVER (PARTITION BY b ORDER BY d ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM c",
    "SELECT sum(a) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING), rows FROM c",
    "SELECT sort_array(collect_list(a)), listagg(a) WITHIN GROUP (ORDER BY a) FROM c GROUP BY b",
    "SELECT a FROM c WHERE b IN (SELECT b FROM d ORDER BY b LIMIT 5) ORDER BY a LIMIT 5",
    "SELECT o.user, user_id FROM o",
    "SELECT 'now and then' AS said, 'today only' FROM o",
    "SELECT offset, o.offset FROM o ORDER BY a LIMIT 5 OFFSET 5",
    "SELECT row_number() OVER (ORDER BY (known_at), -units), lag(a) OVER (ORDER BY null_count) FROM c",
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


def test_a_table_that_no_placeholder_gives_is_named() -> None:
    ctes = "WITH seen AS (SELECT * FROM {orders} AS o JOIN analytics.orders AS b USING (order_id))"
    assert tables(f"{ctes} SELECT * FROM seen, {{base}} JOIN orders JOIN delta.`/lake/raw/orders` VERSION AS OF 3") == [
        "analytics.orders",
        'delta."/lake/raw/orders"',
        "orders",
    ]
    assert not any(tables(path.read_text()) for path in ROOT.glob("feature_repo/**/*.sql"))


def test_a_template_that_reads_the_run_that_compiles_it_is_named() -> None:
    assert templated("{# run_started_at #} SELECT '{{ modules.datetime.datetime.now() }}' AS invocation_id") == [
        "the wall clock (modules.datetime)"
    ]
    assert templated("{% set day = run_started_at.date() %} SELECT '{{ day }}'") == ["the wall clock (run_started_at)"]
