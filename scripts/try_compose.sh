#!/usr/bin/env bash
# Starts the services of compose.yaml without a registry: sudo scripts/try_compose.sh, after scripts/try_image.sh
#
# It needs podman with netavark and aardvark-dns, runc, buildah, mmdebstrap, curl and podman-compose (COMPOSE="uv tool run podman-compose").
# Debian's PostgreSQL stands in for the published image, with its names for user and password. podman leaves health checks to systemd's
# timers, which a machine may lack, so the server is restarted until the database is there. PODMAN_ARGS and RUN_ARGS are for a machine
# with bounds of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=chroot POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-tried}
WORK=$(mktemp -d) DATABASE=docker.io/library/postgres:17
printf '[network]\nnetwork_backend = "netavark"\n' >"$WORK/containers.conf"
export CONTAINERS_CONF=$WORK/containers.conf
read -r -a COMPOSE <<<"${COMPOSE:-podman-compose}"

compose() {
  "${COMPOSE[@]}" --podman-args="${PODMAN_ARGS:---cgroup-manager cgroupfs --runtime /usr/sbin/runc}" --podman-run-args="${RUN_ARGS:-}" \
    --project-name intaglio-tried --file "$WORK/compose.yaml" --profile postgresql "$@"
}
clean_up() {
  compose down --volumes >/dev/null 2>&1 || true
  rm -rf "$WORK"
}
trap clean_up EXIT

said() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

# answers PORT: until the server is ready; fails after two minutes.
answers() {
  for _ in $(seq 240); do
    if curl -sf "http://127.0.0.1:$1/health" >/dev/null; then return; fi
    read -r -t 0.5 <> <(:) || true
  done
  compose logs && exit 1
}

python3 - "$WORK/compose.yaml" <<'PYTHON'
import re, sys
text = open("compose.yaml").read().replace("service_healthy", "service_started")
text = re.sub(r"    healthcheck:\n(?:      .*\n)+", "", text)
open(sys.argv[1], "w").write(text)
PYTHON

if ! podman image exists "$DATABASE"; then
cat >"$WORK/entry.sh" <<'ENTRY'
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
DATA=/var/lib/postgresql/data
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -s $DATA/PG_VERSION ]; then
  chown postgres $DATA && chmod 700 $DATA
  printf %s "$POSTGRES_PASSWORD" >/tmp/password && chmod 644 /tmp/password
  as_postgres initdb -D $DATA -E UTF8 -U "$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust
  echo "host all all all scram-sha-256" >>$DATA/pg_hba.conf
  as_postgres pg_ctl -D $DATA -w start && createdb -h /var/run/postgresql -U "$POSTGRES_USER" "$POSTGRES_USER"
  as_postgres pg_ctl -D $DATA -w stop
fi
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D $DATA -c 'listen_addresses=*'
ENTRY
cat >"$WORK/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD database.tar /
RUN mkdir -p /var/lib/postgresql/data /var/run/postgresql && chown postgres /var/run/postgresql
COPY entry.sh /entry.sh
ENTRYPOINT ["bash", "/entry.sh"]
DOCKERFILE
mmdebstrap --quiet --variant=minbase --include=postgresql bookworm "$WORK/database.tar"
buildah build --quiet --format docker --tag "$DATABASE" "$WORK" >/dev/null
rm "$WORK/database.tar"
fi
podman tag localhost/intaglio-tried localhost/intaglio
said "the images are there"

compose up --no-build -d server >/dev/null
answers 8080
curl -sf http://127.0.0.1:8080/client/v4/accounts/local/ai/finetunes -d '{"model": "@intaglio/gemma-3-270m", "name": "kept"}' >/dev/null
compose down >/dev/null 2>&1
compose up --no-build -d server >/dev/null
answers 8080
curl -sf http://127.0.0.1:8080/client/v4/accounts/local/ai/finetunes | grep -q '"kept"'
said "server: it answers, and after down and up it has what was created"

compose up --no-build -d database >/dev/null
compose up --no-build -d server-with-postgresql >/dev/null
answers 8081
curl -sf http://127.0.0.1:8081/client/v4/accounts/local/ai/finetunes -d '{"model": "@intaglio/gemma-3-270m", "name": "in-postgresql"}' >/dev/null
curl -sf http://127.0.0.1:8081/client/v4/accounts/local/ai/finetunes | grep -q '"in-postgresql"'
said "server-with-postgresql: it answers, and its finetune is in the database"
