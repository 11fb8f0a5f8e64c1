"""Which days customers are observed on, and which of them train and test.

The test observation is the last weekly snapshot whose label window is whole; weeks are counted from the first
snapshot. Training observations lie every fourth week before it, behind an embargo: no training label looks past the
moment the test is observed, so that the model under test could really have been trained then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from training.churn.labels import horizon_days, last_observable
from training.errors import TrainingError

EVERY = timedelta(weeks=4)
WARM_UP = timedelta(days=90)
"""Before it the longest feature window (90 days) reaches back before the shop's first day."""


@dataclass(frozen=True)
class Observations:
    """Observation days: `train` in order, and the one `test` day after them."""

    train: tuple[date, ...]
    test: date

    @property
    def days(self) -> tuple[date, ...]:
        """All of them, in order."""
        return (*self.train, self.test)


def choose(snapshots: Iterable[date], as_of: date) -> Observations:
    """The observation days among the days that have snapshots, for data that reaches `as_of`.

    Raises TrainingError when there is no test day with a whole label window, or no training day behind the embargo.
    """
    days = sorted(set(snapshots))
    weekly = [day for day in days if (day - days[0]).days % 7 == 0]
    last = last_observable(as_of)
    usable = [day for day in weekly if day <= last]
    if not usable:
        raise TrainingError(
            f"no weekly snapshot up to {last} among {len(weekly)}: a label needs {horizon_days()} days of orders after "
            f"its observation and the data reaches {as_of}"
        )
    test = usable[-1]
    embargoed = last_observable(test)
    admissible = [day for day in usable if usable[0] + WARM_UP <= day <= embargoed]
    train = tuple(day for day in admissible if (admissible[-1] - day) % EVERY == timedelta(0))
    if not train:
        raise TrainingError(
            f"no training observation: weekly snapshots begin {usable[0]}, feature windows are whole {WARM_UP.days} "
            f"days later, and labels must end by the test observation {test}, so {embargoed} is the last day; "
            f"the data (as of {as_of}) needs about {WARM_UP.days + 2 * horizon_days()} days of history"
        )
    return Observations(train, test)
