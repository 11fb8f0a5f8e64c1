"""Grafana as code: the dashboards' generator, what it generated, and the files that provision a Grafana with it."""
