#!/bin/sh
# A role and a database a service. Running it again sets the passwords again.
#   airflow, mlflow, marquez   own a database each
#   shop                       owns the shop's tables
#   landing                    reads them, and may change nothing
# Nobody logs in as one of these: a login is named after its service and GENERATION and acts as the service's role, so
# that two generations of passwords work side by side. RETIRE=1 drops the logins of all others.
set -eu
for _ in $(seq 60); do pg_isready -q -h postgres && break; sleep 1; done # it may be starting, or a network policy be new
run() { psql -q -v ON_ERROR_STOP=1 -h postgres -U postgres "$@"; }
role() { # NAME PASSWORD
  PASSWORD="$2" run -v name="$1" -v login="${1}_$GENERATION" <<'S'
\getenv password PASSWORD
SELECT format('CREATE ROLE %I', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
SELECT format('CREATE ROLE %I', :'login') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'login') \gexec
ALTER ROLE :"login" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
GRANT :"name" TO :"login";
ALTER ROLE :"login" SET role TO :"name";
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
[ -z "${RETIRE:-}" ] || run -v generation="$GENERATION" <<'S'
SELECT format('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %L', rolname), format('DROP ROLE %I', rolname)
FROM pg_roles WHERE rolname ~ '^(airflow|mlflow|shop|marquez|landing)_' AND rolname ~ '_[0-9a-f]{6}$' AND rolname !~ (:'generation' || '$') \gexec
S
echo "roles and databases are there"
