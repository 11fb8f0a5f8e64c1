"""Is the canary worse? A sequential test that may be looked at after every request: pure functions on counts.

The test is that of Lindon, Sanden and Shirikian (Rapid Regression Detection in Software Deployments through Sequential
Testing, KDD 2022, arXiv 2205.14762): given that an event (an order, a call) happened, under the null it was the
canary's with the probability of the canary's share of the requests then, whatever the rate of events does over the
day; a mixture over alternatives of the likelihood ratio is a martingale, and its inverse a p-value at any time.

Their counts are Poisson. Ours are of requests that end in an event or do not, and many do, so the conditional law is
taken exactly. Requests come in cells: those of one minute whose outcomes became known together. Which of them went to
the canary is the proxy's coin, so under the null the canary's share of the cell's events is hypergeometric; where its
odds of an event are exp(d) times stable's, Fisher's noncentral hypergeometric; with rare events, the paper's binomial.
Only a cell's margins enter, the realised assignment and not the weights that were meant: weights may change at any time
(10, 25, 50 %) and rates may drift between cells without any bias; within one only a change of both at once would be
seen, second order in a minute.

For each d the product over cells of P(events of the canary | d) / P(... | 0) has expectation 1 under the null: given
everything before a cell and its margins, each factor has. So has every mixture. One-sided: where the canary is better
than the null, each factor's expectation is below 1 (log E exp(dX) is convex), so the null is `no worse`, not `equal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

Harm = Literal[-1, 1]
"""What is worse: a lower rate (-1) or a higher one (1)."""

FARTHEST = 5.0
"""The log odds ratios that are thought of, either way: a rate of 5 % against one of 89 %."""

STEPS = 4
"""Points of the grid from no effect to the one that is looked for. The prior is on the grid, so that coarseness costs
power, never validity."""


@dataclass(frozen=True)
class Difference:
    """A KPI of the canary less stable's, and its confidence sequence; in the KPI's unit."""

    estimate: float
    lower: float
    upper: float


class SequentialTest:
    """One KPI of one canary. `level` is this KPI's share of alpha, `effect` the relative change that is looked for.

    The prior on the log odds ratio is half a Cauchy on the harmful side whose median is log(1 + effect): most weight
    where the effect is, and a tail that finds large ones soon. `p_value` is the smallest so far: under the null it is
    ever at or below x with probability x at most (Ville's inequality).
    """

    def __init__(self, level: float, effect: float, harm: Harm) -> None:
        import numpy as np

        self.level, self.harm = level, harm
        self.canary = self.stable = self.canary_events = self.stable_events = 0
        self.p_value = 1.0
        self.step = math.log1p(effect) / STEPS
        self.reach = math.ceil(FARTHEST / self.step)
        self._weights = _half_cauchy(self.reach)
        self._weights_sum = math.fsum(self._weights)  # 1, but for the rounding of each weight
        self._log_likelihood: NDArray[Any] = np.zeros(4 * self.reach + 1)  # at -2 FARTHEST … 2 FARTHEST

    def add(self, canary: int, stable: int, canary_events: int, stable_events: int) -> None:
        """One cell: requests with a known outcome, and those of them that ended in an event."""
        self.canary += canary
        self.stable += stable
        self.canary_events += canary_events
        self.stable_events += stable_events
        events = canary_events + stable_events
        if not canary or not stable or not 0 < events < canary + stable:
            return  # the margins leave nothing to chance
        self._log_likelihood += canary_events * _grid(self.reach, self.step)
        self._log_likelihood -= _log_mgf(canary, stable, events, self.reach, self.step)
        self.p_value = min(self.p_value, math.exp(-max(0.0, self.log_bayes_factor())))

    def difference(self) -> Difference | None:
        """The canary's rate less stable's, as far as is known; None before anything is.

        The log odds ratio of highest likelihood, and those that the same one-sided test, at `level`, has not refused
        from either side: each bound holds at all times together with probability 1 - level, and the harmful one leaves
        out 0 exactly when the current Bayes factor refuses the null. Shown as a difference at stable's observed rate.
        """
        import numpy as np

        if not self._log_likelihood.any():
            return None
        best = self.reach + int(np.argmax(self._log_likelihood[self.reach : 3 * self.reach + 1]))
        lower, upper = self._bound(-1), self._bound(1)
        return Difference(*(self._at_stable(d) for d in (self._peak(best), lower, upper)))

    def log_bayes_factor(self) -> float:
        """Exactly 0 without data: `fsum` rounds once, whatever the order, so equal sums of equal terms divide to 1.

        A dot product rounds at each addition, in an order that the processor and the memory's alignment decide.
        """
        import numpy as np

        harmful = self._log_likelihood[2 * self.reach :: self.harm][1 : self.reach + 1]
        top = float(harmful.max())
        return top + math.log(math.fsum(self._weights * np.exp(harmful - top)) / self._weights_sum)

    def _bound(self, side: Harm) -> float:
        """The log odds ratio farthest to that side that is not refused, for the sake of one on the other side of it.

        The evidence against d grows with d on the upper side, as the log likelihood is concave: one crossing.
        """
        import numpy as np

        likelihood = self._log_likelihood[::side]
        asked = np.arange(self.reach, 3 * self.reach + 1)
        behind = np.lib.stride_tricks.sliding_window_view(likelihood, self.reach)[asked - self.reach][:, ::-1]
        top = behind.max(axis=1)
        evidence = top + np.log(np.exp(behind - top[:, None]) @ self._weights) - likelihood[asked]
        needed = -math.log(self.level)
        where = (asked - 2 * self.reach) * self.step
        refused = np.flatnonzero(evidence >= needed)
        if not len(refused):
            return side * float(where[-1])
        first = int(refused[0])
        if first == 0:
            return side * float(where[0])
        share = (needed - evidence[first - 1]) / (evidence[first] - evidence[first - 1])
        return side * float(where[first - 1] + share * self.step)

    def _peak(self, best: int) -> float:
        """The maximum between grid points, by a parabola through three."""
        here = (best - 2 * self.reach) * self.step
        if best in (self.reach, 3 * self.reach):
            return here  # or beyond: it has no end when all events are of one side
        left, middle, right = self._log_likelihood[best - 1 : best + 2]
        bend = left - 2 * middle + right
        return float(here + (0.5 * (left - right) / bend * self.step if bend < 0 else 0.0))

    def _at_stable(self, log_odds_ratio: float) -> float:
        rate = (self.stable_events + 0.5) / (self.stable + 1)
        return 1 / (1 + (1 - rate) / rate * math.exp(-log_odds_ratio)) - rate


def _half_cauchy(reach: int) -> NDArray[Any]:
    """Weights of 1 … reach steps, median at STEPS; they sum to 1."""
    import numpy as np

    weights = 1 / (1 + (np.arange(1, reach + 1) / STEPS) ** 2)
    normal: NDArray[Any] = weights / weights.sum()
    return normal


@lru_cache(maxsize=8)
def _grid(reach: int, step: float) -> NDArray[Any]:
    import numpy as np

    found: NDArray[Any] = np.arange(-2 * reach, 2 * reach + 1) * step
    return found


@lru_cache(maxsize=20_000)
def _log_mgf(canary: int, stable: int, events: int, reach: int, step: float) -> NDArray[Any]:
    """log E exp(d X) on the grid of d, X the canary's events under the null: hypergeometric."""
    import numpy as np

    x = np.arange(max(0, events - stable), min(canary, events) + 1)
    ways = _log_choose(canary)[x] + _log_choose(stable)[events - x]
    terms = ways[None, :] + _grid(reach, step)[:, None] * x[None, :]
    top = terms.max(axis=1)
    total = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
    found: NDArray[Any] = total - total[2 * reach]
    return found


@lru_cache(maxsize=2_000)
def _log_choose(n: int) -> NDArray[Any]:
    """log (n over k) for k = 0 … n."""
    import numpy as np

    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    found: NDArray[Any] = logs[n] - logs - logs[::-1]
    return found
