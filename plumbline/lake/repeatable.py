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
        "input_file_block_start", "input_file_block_length", "is_account_group_member",
    },
    RANDOM: {"rand", "random", "randn", "randstr", "uniform", "uuid", "shuffle"},
    ORDER: {"monotonically_increasing_id", "spark_partition_id", "any_value", "first", "last", "first_value",
            "last_value"},
}  # fmt: skip
"""Spark's functions that depend on more than their arguments, by what they depend on."""

WITHOUT_ARGUMENTS = {"unix_timestamp", "to_unix_timestamp"}
"""Functions that read the clock when they are given nothing."""

BARE = {"current_date", "current_timestamp", "current_time", "current_user", "session_user", "localtimestamp"}
"""Those that Spark takes without parentheses as well."""

SPECIAL = re.compile(r"\b(?:date|timestamp(?:_ltz|_ntz)?)\s*'\s*(now|today|tomorrow|yesterday)\b[^']*'", re.IGNORECASE)
WORDS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|[\w.]+|\S", re.DOTALL)


def depends_on(sql: str) -> list[str]:
    """What a text reads beside its tables, a phrase each, as in `the wall clock (current_date)`; usually nothing.

    An aggregate or window that takes whichever row comes first counts only without an order of its own.
    """
    words = [word for word in WORDS.findall(sql) if not word.startswith(("--", "/*"))]
    lowered = [word.lower() for word in words]
    phrases = [f"{CLOCK} ({match.group(0)})" for match in SPECIAL.finditer(sql)]
    for at, word in enumerate(lowered):
        behind = lowered[at + 1] if at + 1 < len(lowered) else ""
        name = word.strip("`").rpartition(".")[2]
        if behind != "(" and (word not in BARE or (at and lowered[at - 1] in {"as", "."})):
            continue
        if behind == "(" and name in WITHOUT_ARGUMENTS and lowered[at + 2 : at + 3] == [")"]:
            phrases.append(f"{CLOCK} ({name}())")
        for source, names in FUNCTIONS.items():
            if name in names and not (source == ORDER and _is_ordered(lowered, at)):
                phrases.append(f"{source} ({name})")
    return list(dict.fromkeys(phrases))


def _is_ordered(words: list[str], at: int) -> bool:
    """Whether the call at this word is a window's, with an ORDER BY between its parentheses."""
    end = _closing(words, at + 1)
    rest = words[end + 1 :]
    while rest[:1] == ["filter"] or rest[:2] in (["ignore", "nulls"], ["respect", "nulls"]):
        rest = rest[_closing(rest, 1) + 1 :] if rest[0] == "filter" else rest[2:]
    if rest[:2] != ["over", "("]:
        return False
    window = rest[2 : _closing(rest, 1)]
    return any(pair == ("order", "by") for pair in pairwise(window))


def _closing(words: list[str], opening: int) -> int:
    depth = 0
    for at in range(opening, len(words)):
        depth += (words[at] == "(") - (words[at] == ")")
        if not depth:
            return at
    return len(words) - 1
