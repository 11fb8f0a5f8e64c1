"""The list of small faults is whole: each has a test that exists, and the page says what the list says."""

from __future__ import annotations

import re

import pytest

from drills import cases
from plumbline.settings import ROOT

ALL = [one for group in cases.read().values() for one in group]


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.case)
def test_each_case_names_tests_that_are_there(one: cases.Case) -> None:
    assert bool(one.tests) != one.now.startswith("open: ")
    for test in one.tests:
        file, _, name = test.partition("::")
        function = name.rpartition("::")[2]
        assert re.search(rf"^ *def {function}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), test


def test_no_case_is_listed_twice() -> None:
    names = [one.case for one in ALL]
    assert len(names) == len(set(names))


def test_the_page_is_what_the_list_gives() -> None:
    assert cases.PAGE.read_text() == cases.text(cases.read())
