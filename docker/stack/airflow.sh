#!/bin/sh
# The API server, with the one user's password where Airflow's simple auth manager looks for it.
set -eu
umask 077
printf '{"plumb": "%s"}' "$AIRFLOW_PASSWORD" > /plumbline/passwords.json
unset AIRFLOW_PASSWORD
exec airflow "$@"
