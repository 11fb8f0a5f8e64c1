# Postgres, started as its official image starts it: the folder of tables is made when it is empty.
ARG SERVERS_IMAGE
FROM ${SERVERS_IMAGE}
COPY postgres.sh /usr/local/bin/postgres.sh
USER 999:999
ENTRYPOINT ["sh", "/usr/local/bin/postgres.sh"]
