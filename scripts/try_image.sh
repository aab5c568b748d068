#!/usr/bin/env bash
# Builds the image without a registry and runs what comes out: sudo scripts/try_image.sh [options of `buildah build`]
#
# It needs buildah, mmdebstrap and curl. The base is a plain Debian 12 instead of the published Python image. The server
# runs as user 10001 on a read-only root, as compose.yaml starts it, in a mount namespace; the host's network is used.
# A machine whose pip needs certificates or settings of its own gives them, such as --volume /etc/pip.conf:/etc/pip.conf:ro
set -euo pipefail
cd "$(dirname "$0")/.."
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=chroot
WORK=$(mktemp -d) PORT=${PORT:-18080}
BASE=localhost/intaglio-base IMAGE=localhost/intaglio-tried
server="" container=""

clean_up() {
  # The server itself: `unshare --fork` ignores SIGTERM, and what it started has another user and so outlives it.
  if [ -n "$server" ]; then pkill -f "intaglio serve --port $PORT" && wait "$server" || true; fi
  if [ -n "$container" ]; then buildah rm "$container" >/dev/null; fi
  rm -rf "$WORK"
}
trap clean_up EXIT

said() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

# Python's headers: the published Python image has them, Debian keeps them in a package of their own.
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-dev,ca-certificates bookworm "$WORK/base.tar"
container=$(buildah from scratch)
buildah add --quiet "$container" "$WORK/base.tar" / >/dev/null
buildah commit --quiet --rm "$container" "$BASE" >/dev/null
container=""
rm "$WORK/base.tar"
said "the base is there"

buildah build --quiet --format docker --build-arg BASE="$BASE" --tag "$IMAGE" "$@" . >/dev/null
said "the image is built: $(buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' "$IMAGE")"
container=$(buildah from --pull-never "$IMAGE")
root=$(buildah mount "$container")
mapfile -t environment < <(buildah inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container" | sed '/^$/d')

# in_image FOLDER COMMAND: as the image's user, its root read-only, FOLDER at /data and a new /tmp.
in_image() (
  data=$1
  shift
  exec unshare --mount --pid --fork --kill-child -- bash -euc '
    root=$1 data=$2; shift 2
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount --bind "$data" "$root/data"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot --userspec=10001:10001 --groups= "$root" /usr/bin/env -i "$@"
  ' in_image "$root" "$data" "${environment[@]}" "$@"
)

mkdir "$WORK/data" "$WORK/foreign"
chown 10001:10001 "$WORK/data"
chmod 755 "$WORK" "$WORK/foreign"

if in_image "$WORK/foreign" intaglio serve --port "$PORT" >"$WORK/foreign.log" 2>&1; then
  echo "a data folder of another user was accepted" && exit 1
fi
said "a data folder of another user: $(tail -n 1 "$WORK/foreign.log")"

started=$(date +%s%N)
in_image "$WORK/data" intaglio serve --port "$PORT" >"$WORK/serve.log" 2>&1 &
server=$!
RUN="http://127.0.0.1:$PORT/client/v4/accounts/local/ai/run/@intaglio/gemma-3-270m"
until curl -sf "http://127.0.0.1:$PORT/health" >/dev/null; do
  kill -0 "$server" || { cat "$WORK/serve.log" && exit 1; }
  read -r -t 0.2 <> <(:) || true
done
read -r word < <(curl -sfN "$RUN" -d '{"raw": true, "prompt": "One, two, three,", "stream": true, "temperature": 0, "max_tokens": 4}')
said "the first word, $word, came $((($(date +%s%N) - started) / 1000000)) ms after the container's start"
curl -sf "$RUN" -d '{"prompt": "Name: Ada, age 36", "lora": "intaglio-json", "max_tokens": 24, "temperature": 0}'
echo
in_image "$WORK/data" python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$PORT/health', timeout=4)"
said "an adapter and the health check answered; /data has: $(ls "$WORK/data" | tr '\n' ' ')"
