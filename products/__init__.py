"""One page a product: data only."""
