#!/bin/sh
# The part of the official image's entrypoint that kustomize/components/postgres relies on.
set -eu

if [ ! -e "$PGDATA" ]; then
    # Moved into place when complete: an interrupted start leaves no partial database.
    staging=$PGDATA.staging
    rm -rf "$staging"
    # shellcheck disable=SC2086 # POSTGRES_INITDB_ARGS contains several arguments
    echo "$POSTGRES_PASSWORD" | initdb --pgdata="$staging" --username="$POSTGRES_USER" \
        --pwfile=/dev/stdin --encoding=UTF8 --locale=C --set=listen_addresses='*' \
        --set=unix_socket_directories=/var/run/postgresql ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >> "$staging/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$staging" postgres
    mv "$staging" "$PGDATA"
fi
exec postgres -D "$PGDATA"
