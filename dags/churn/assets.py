"""What one DAG produces and another starts on."""

from __future__ import annotations

from airflow.sdk import Asset

FEATURES = Asset("features.customers", uri="plumbline://churn/features.customers")
"""A release's customer features, published, online, and found equal on both sides."""
