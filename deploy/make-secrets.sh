#!/bin/sh
# Make the secrets of compose.yaml in deploy/secrets, once: passwords of PostgreSQL, Redis and Orthanc, each where it is
# needed. What is there already is left alone; remove a file to have it made anew (and change the password in its service).
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 700 secrets

password() { # 32 characters that need no quoting anywhere
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

put() { # file; its text comes on standard input
    [ -e "secrets/$1" ] && return 0
    cat >"secrets/$1.part"
    # Compose binds the file into the container as it is, and each service runs as a user of its own: so all may read
    # it, once they are past the folder, which only its owner is.
    chmod 444 "secrets/$1.part"
    mv "secrets/$1.part" "secrets/$1"
    echo "made deploy/secrets/$1"
}

[ -e secrets/postgres_password ] || password | put postgres_password
[ -e secrets/redis_password ] || password | put redis_password
[ -e secrets/orthanc_password ] || password | put orthanc_password

put redis.conf <<EOF
bind 0.0.0.0
protected-mode yes
requirepass $(cat secrets/redis_password)
appendonly yes
dir /data
maxmemory 400mb
maxmemory-policy noeviction
EOF

put orthanc_users.json <<EOF
{ "RegisteredUsers": { "wetread": "$(cat secrets/orthanc_password)" } }
EOF

sed -e "s/@POSTGRES_PASSWORD@/$(cat secrets/postgres_password)/" \
    -e "s/@REDIS_PASSWORD@/$(cat secrets/redis_password)/" settings.compose.toml | put settings.toml

echo "Orthanc and the viewer: user wetread, password in deploy/secrets/orthanc_password"
