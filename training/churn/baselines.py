"""What the model has to beat: the days since the last order alone, and the classic model of non-contractual buying.

Both are scored on the same test rows as the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd
    from numpy.typing import NDArray


def recency(train_days: NDArray[Any], train_churned: NDArray[Any], test_days: NDArray[Any]) -> NDArray[Any]:
    """P(churn) from days since the last order: logistic regression on log(1 + days), fitted on the training rows.

    It ranks customers by recency exactly; the regression only turns days into probabilities, so that log loss and
    Brier score mean something.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    def shaped(days: NDArray[Any]) -> NDArray[Any]:
        column: NDArray[Any] = np.log1p(days.astype(np.float64)).reshape(-1, 1)
        return column

    fitted = LogisticRegression(C=1e6).fit(shaped(train_days), train_churned)
    probability: NDArray[Any] = fitted.predict_proba(shaped(test_days))[:, 1]
    return probability


@dataclass(frozen=True)
class BgNbd:
    """A fitted BG/NBD model (Fader, Hardie and Lee, "Counting Your Customers the Easy Way", Marketing Science 2005).

    While active a customer buys at a Poisson rate that is Gamma(r, alpha) over customers; after each purchase they
    leave with a probability that is Beta(a, b). Time is in days.
    """

    r: float
    alpha: float
    a: float
    b: float

    def no_purchase(
        self, frequency: NDArray[Any], recency: NDArray[Any], age: NDArray[Any], days: float
    ) -> NDArray[Any]:
        """P(no purchase in the next `days` days | history), exact under the model.

        `frequency` counts repeat purchase days, `recency` is the age at the last one, `age` the days since the first.
        Either the customer has left, or is active and silent: given that they are active, the posterior of their rate
        is Gamma(r + x, alpha + T), so silence has probability ((alpha + T) / (alpha + T + days)) ^ (r + x). P(active)
        is the authors' (brucehardie.com/notes/021). The usual expected number of purchases is no probability.
        """
        silent = ((self.alpha + age) / (self.alpha + age + days)) ** (self.r + frequency)
        active = self._active(frequency, recency, age)
        probability: NDArray[Any] = 1 - active + active * silent
        return probability

    def _active(self, frequency: NDArray[Any], recency: NDArray[Any], age: NDArray[Any]) -> NDArray[Any]:
        import numpy as np
        from scipy.special import expit

        repeats = np.maximum(frequency, 1)
        odds_left = (self.r + repeats) * np.log((self.alpha + age) / (self.alpha + recency)) + np.log(
            self.a / (self.b + repeats - 1)
        )
        # In BG/NBD one leaves only after a repeat purchase, so who has none is active for sure.
        active: NDArray[Any] = np.where(frequency == 0, 1.0, expit(-odds_left))
        return active


def history(orders: pd.DataFrame, observed: date) -> pd.DataFrame:
    """Frequency, recency and age in days for every customer, from `customer_id` and `order_date` up to `observed`."""
    from lifetimes.utils import summary_data_from_transaction_data

    summary: pd.DataFrame = summary_data_from_transaction_data(
        orders, "customer_id", "order_date", observation_period_end=observed
    )
    return summary.rename(columns={"T": "age"})


def fit_bgnbd(summary: pd.DataFrame) -> BgNbd:
    """Maximum likelihood by `lifetimes`, each distinct history weighed by how many customers share it.

    The model sees no labels: purchases known on the test day are its honest training data.
    """
    from lifetimes import BetaGeoFitter

    shared = summary.groupby(["frequency", "recency", "age"]).size().reset_index(name="customers")
    fitter = BetaGeoFitter().fit(shared["frequency"], shared["recency"], shared["age"], weights=shared["customers"])
    return BgNbd(**{name: float(fitter.params_[name]) for name in ("r", "alpha", "a", "b")})


def bgnbd(
    orders: pd.DataFrame, observed: date, customers: NDArray[Any], days: int
) -> tuple[NDArray[Any], BgNbd] | None:
    """P(no order in the `days` after `observed`) for these customers, and the fitted model; None where no parameters
    fit best, as where hardly anybody of few customers leaves.

    `orders` are those known on that day. Raises TrainingError when a customer has none among them.
    """
    from lifetimes.utils import ConvergenceError

    summary = history(orders, observed)
    strangers = sorted(set(customers.tolist()) - set(summary.index.tolist()))
    if strangers:
        raise TrainingError(
            f"{len(strangers)} test customers have no order dated up to {observed}, the first is {strangers[0]}"
        )
    try:
        fitted = fit_bgnbd(summary)
    except ConvergenceError:
        return None
    asked = summary.loc[customers]
    frequency, last, age = (asked[name].to_numpy(dtype="float64") for name in ("frequency", "recency", "age"))
    return fitted.no_purchase(frequency, last, age, days), fitted
