#!/bin/sh
# A role and a database a service, with the passwords in the environment. Running it again sets the passwords again.
#   airflow, mlflow, marquez   own a database each
#   shop                       owns the shop's tables
#   landing                    reads them, and may change nothing
set -eu
run() { psql -q -v ON_ERROR_STOP=1 -h postgres -U postgres "$@"; }
role() { # NAME PASSWORD
  run -v name="$1" -v password="$2" <<'S'
SELECT format('CREATE ROLE %I LOGIN', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
S
}
database() { # NAME
  run -v name="$1" <<'S'
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"name";
S
}
role airflow "$AIRFLOW"
role mlflow "$MLFLOW"
role shop "$SHOP"
role marquez "$MARQUEZ"
role landing "$LANDING"
for name in airflow mlflow shop marquez; do database "$name"; done
run -d shop <<'S'
GRANT CONNECT ON DATABASE shop TO landing;
GRANT USAGE ON SCHEMA public TO landing;
GRANT CREATE ON SCHEMA public TO shop;
ALTER DEFAULT PRIVILEGES FOR ROLE shop IN SCHEMA public GRANT SELECT ON TABLES TO landing;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO landing;
S
echo "roles and databases are there"
