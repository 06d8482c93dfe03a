#!/bin/sh
# What the official image does at its start, as far as kustomize/components/postgres asks for it.
set -eu

if [ ! -e "$PGDATA" ]; then
    # Aside, so that a start that is cut off leaves no half of a database.
    fresh=$PGDATA.fresh
    rm -rf "$fresh"
    # shellcheck disable=SC2086 # it holds several arguments
    echo "$POSTGRES_PASSWORD" | initdb --pgdata="$fresh" --username="$POSTGRES_USER" \
        --pwfile=/dev/stdin --encoding=UTF8 --locale=C --set=listen_addresses='*' \
        --set=unix_socket_directories=/var/run/postgresql ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >> "$fresh/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$fresh" postgres
    mv "$fresh" "$PGDATA"
fi
exec postgres -D "$PGDATA"
