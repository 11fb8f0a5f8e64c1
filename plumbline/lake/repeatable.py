"""SQL that gives the same rows whenever and by whomever it is run: one that reads more than its tables is refused.

A definition that reads the wall clock says something else of an old day each time it is computed, and no comparison
made within one minute sees it. So the text is looked at, before it runs.
"""

from __future__ import annotations

import re
from itertools import pairwise

CLOCK = "the wall clock"
SESSION = "the session"
RANDOM = "a random number"
ORDER = "how the rows happen to lie"
FUNCTIONS = {
    CLOCK: {
        "current_date", "curdate", "current_time", "current_timestamp", "now", "getdate", "localtimestamp",
        "localtime", "sysdate", "systimestamp",
    },
    SESSION: {
        "current_user", "session_user", "user", "current_catalog", "current_database", "current_schema",
        "current_timezone", "version", "reflect", "java_method", "try_reflect", "input_file_name",
        "input_file_block_start", "input_file_block_length", "is_account_group_member", "current_path", "identifier",
    },
    RANDOM: {"rand", "random", "randn", "randstr", "uniform", "uuid", "shuffle"},
    ORDER: {
        "monotonically_increasing_id", "spark_partition_id", "any_value", "first", "last", "first_value", "last_value",
        "row_number", "rank", "dense_rank", "ntile", "lag", "lead", "nth_value", "max_by", "min_by", "mode",
        "collect_list", "collect_set", "array_agg", "listagg", "string_agg",
    },
}  # fmt: skip
"""Spark's functions that depend on more than their arguments, by what they depend on."""

SORTS = {"sort_array", "array_sort"}
"""What makes of a list that lies as its rows do one that is always the same."""

WITHOUT_ARGUMENTS = {"unix_timestamp", "to_unix_timestamp"}
"""Functions that read the clock when they are given nothing."""

BARE = {"current_date", "current_timestamp", "current_time", "current_user", "session_user", "user", "localtimestamp"}
"""Those that Spark takes without parentheses as well."""

CONSTANT = re.compile(r"['\"]|(?:\(select|[-+]?(?:\d[\d.]*|null|true|false))$")
"""How an ORDER BY begins that orders nothing: by a literal, or by a subquery that has one row."""

SPECIAL = re.compile(r"[rR]?(['\"])\s*(?i:now|today|tomorrow|yesterday)(?:\s+[A-Z+-]\S*)?\s*\1")
"""A text that Spark reads as a moment wherever a day or a time is expected, in a comparison too; a zone may follow."""

GIVEN = "given_"
"""What a placeholder's name begins with while a query is parsed."""

JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
RUNS = re.compile(r"\b(run_started_at|invocation_id|modules\.datetime|modules\.pytz|thread_id)\b")
"""What dbt hands a template that is another at each run."""

WORDS = re.compile(
    r"--[^\r\n]*|/\*.*?\*/|\b[rR]'[^']*'|\b[rR]\"[^\"]*\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|[\w.]+|\S",
    re.DOTALL,
)


def depends_on(sql: str) -> list[str]:
    """What a text reads beside its tables, a phrase each, as in `the wall clock (current_date)`; usually nothing.

    An aggregate or window that takes rows as they come counts only without an order of its own.
    """
    words = [word for word in WORDS.findall(sql) if not word.startswith(("--", "/*"))]
    lowered = [word.lower() for word in words]
    phrases = [f"{CLOCK} ({word})" for word in words if SPECIAL.fullmatch(word)]
    for at, word in enumerate(lowered):
        behind = lowered[at + 1] if at + 1 < len(lowered) else ""
        name = word.strip("`").rpartition(".")[2]
        if word == "tablesample":
            phrases.append(f"{RANDOM} ({word})")
        elif (word == "limit" or (word == "offset" and behind.isdecimal())) and not _sorted_before(lowered, at):
            phrases.append(f"{ORDER} ({word} without an order by)")
        elif "_metadata" in word.replace("`", "").split("."):
            phrases.append(f"{ORDER} ({word})")
        elif word == "rows" and _opens_frame(lowered, at):
            phrases.append(f"{ORDER} (a window of rows without an order by)")
        if behind != "(" and (word not in BARE or (at and lowered[at - 1] in {"as", "."})):
            continue
        if behind == "(" and name in WITHOUT_ARGUMENTS and lowered[at + 2 : at + 3] == [")"]:
            phrases.append(f"{CLOCK} ({name}())")
        for source, names in FUNCTIONS.items():
            if name in names and not (source == ORDER and _is_ordered(lowered, at)):
                phrases.append(f"{source} ({name})")
    return list(dict.fromkeys(phrases))


def tables(sql: str) -> list[str]:
    """The relations that a query with `{placeholders}` names beside them and its own CTEs, sorted; usually none.

    Nothing for a text that only Spark can parse.
    """
    from sqlglot import errors, exp, parse_one

    try:
        tree = parse_one(re.sub(r"\{(\w+)\}", rf"{GIVEN}\1", sql), dialect="spark")
    except errors.SqlglotError:
        return []
    own = {each.alias.lower() for each in tree.find_all(exp.CTE)}
    named = {each for each in tree.find_all(exp.Table) if each.db or each.name.lower() not in own}
    return sorted({exp.table_name(each) for each in named if not each.name.startswith(GIVEN)})


def templated(jinja: str) -> list[str]:
    """What a dbt template reads of the run that compiles it, as `depends_on` tells it: the text that comes of it does
    not show that any more."""
    inside = " ".join(match.group(0) for match in JINJA.finditer(re.sub(r"\{#.*?#\}", "", jinja, flags=re.DOTALL)))
    return [f"{CLOCK} ({word})" for word in dict.fromkeys(RUNS.findall(inside))]


def _is_ordered(words: list[str], at: int) -> bool:
    """Whether the call at this word has an order of its own: its window's, or WITHIN GROUP, or its list is sorted."""
    if at > 1 and words[at - 1] == "(" and words[at - 2] in SORTS:
        return True
    end = _closing(words, at + 1)
    rest = words[end + 1 :]
    if rest[:3] == ["within", "group", "("]:
        return True
    while rest[:1] == ["filter"] or rest[:2] in (["ignore", "nulls"], ["respect", "nulls"]):
        rest = rest[_closing(rest, 1) + 1 :] if rest[0] == "filter" else rest[2:]
    if rest[:1] != ["over"]:
        return False
    if rest[1:2] == ["("]:
        return _orders(rest[2 : _closing(rest, 1)])
    named = next((n for n in range(len(words) - 2) if words[n : n + 3] == [*rest[1:2], "as", "("]), None)
    return named is not None and _orders(words[named + 3 : _closing(words, named + 2)])


def _orders(words: list[str]) -> bool:
    """Whether there is an ORDER BY among these words, by more than a constant."""
    by = next((at + 2 for at, pair in enumerate(pairwise(words)) if pair == ("order", "by")), None)
    if by is None:
        return False
    signed = words[by : by + 1] in (["-"], ["+"], ["("])
    return not CONSTANT.match("".join(words[by : by + 1 + signed]))


def _sorted_before(words: list[str], at: int) -> bool:
    """Whether the query that this LIMIT ends has an ORDER BY of its own."""
    depth = 0
    for place in range(at - 1, 0, -1):
        depth += (words[place] == ")") - (words[place] == "(")
        if depth < 0:
            return False
        if not depth and words[place - 1 : place + 1] == ["order", "by"]:
            return True
    return False


def _opens_frame(words: list[str], at: int) -> bool:
    """Whether this ROWS frames a window that has no order, and not all of its rows."""
    if words[at + 1 : at + 2] not in (["between"], ["unbounded"], ["current"]) and words[at + 2 : at + 3] != [
        "preceding"
    ]:
        return False
    depth, start = 0, at
    while start and depth >= 0:
        start -= 1
        depth += (words[start] == ")") - (words[start] == "(")
    whole = words[at + 1 : at + 7] == ["between", "unbounded", "preceding", "and", "unbounded", "following"]
    return depth < 0 and not whole and not _orders(words[start:at])


def _closing(words: list[str], opening: int) -> int:
    depth = 0
    for at in range(opening, len(words)):
        depth += (words[at] == "(") - (words[at] == ")")
        if not depth:
            return at
    return len(words) - 1
