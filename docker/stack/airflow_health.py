"""Exits with 1 unless the API server says that a part of Airflow is healthy: `python airflow_health.py scheduler`."""

import json
import sys
import urllib.request

with urllib.request.urlopen("http://airflow-api:8080/api/v2/monitor/health", timeout=4) as answer:
    sys.exit(json.load(answer)[sys.argv[1]]["status"] != "healthy")
