"""One page a product: data only. `ALL` is what the platform runs."""

from products.churn import CHURN
from products.images import IMAGES

ALL = (CHURN, IMAGES)
