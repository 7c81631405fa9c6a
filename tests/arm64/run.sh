#!/usr/bin/env bash
# Does the debian12 wheelhouse install on an arm64 machine without a network, and give the verdicts of this one?
# An arm64 Debian 12 under qemu; single processes only, so no kernel support for foreign binaries is needed.
set -euo pipefail
shopt -s inherit_errexit

usage() {
  cat <<'TEXT'
usage: tests/arm64/run.sh [--folder DIR] [--archive FILE] [--mirror URL] [--verify]

Installs edge-reclass in an arm64 Debian 12 user space, without a network, from the debian12 wheelhouse; classifies
real clips there (wav, mp3, flac, ogg, m4a) and here; prints verdicts and embeddings side by side. Then the arm64
program classifies the same clips through the socket of a service that runs here. Linux on x86-64, as root; installs qemu-user-static and debootstrap with apt-get where they are missing.

  --folder DIR    keeps the user space for the next run [default: /tmp/edge-reclass-arm64]
  --archive FILE  a wheelhouse [default: made with jetson/make_wheelhouse.sh debian12]
  --mirror URL    Debian's packages [default: http://deb.debian.org/debian]
  --verify        run `edge-reclass verify` there too: many windows, many minutes

EDGE_RECLASS_DATA  folder of real audio [default: ../shared/data beside the checkout]
PYTHON             a Python here with edge-reclass's dependencies and PyAV [default: .venv/bin/python, else python3]

Exit codes: 0 the same; 1 different, or something failed; 2 wrong usage.
TEXT
}

fail() { printf 'run.sh: %s\n' "$1" >&2; exit "${2:-1}"; }
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
checkout="$(cd "$here/../.." && pwd)"
folder=/tmp/edge-reclass-arm64
archive=""
mirror=http://deb.debian.org/debian
verify=""
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --verify) verify=yes; shift ;;
    --folder | --archive | --mirror)
      if [ $# -lt 2 ] || [ -z "$2" ]; then fail "$1: expected a value; see --help" 2; fi
      case "$1" in --folder) folder="$2" ;; --archive) archive="$2" ;; --mirror) mirror="$2" ;; esac
      shift 2
      ;;
    *) fail "unexpected $1; see --help" 2 ;;
  esac
done
if [ -n "$archive" ] && [ ! -f "$archive" ]; then fail "--archive: $archive does not exist" 2; fi

if [ "$(uname -m)" != x86_64 ]; then fail "this is $(uname -m); the comparison is between x86-64 and arm64"; fi
if [ "$(id -u)" -ne 0 ]; then fail "root is needed, for chroot and for namespaces: sudo tests/arm64/run.sh"; fi
data="${EDGE_RECLASS_DATA:-$checkout/../shared/data}"
if [ ! -d "$data" ]; then fail "no real audio at $data; set EDGE_RECLASS_DATA"; fi
python="${PYTHON:-}"
if [ -z "$python" ]; then
  if [ -x "$checkout/.venv/bin/python" ]; then python="$checkout/.venv/bin/python"; else python=python3; fi
fi
"$python" -c 'import av, msgspec, numpy, onnxruntime, soundfile, soxr, typer, uvicorn, yaml' ||
  fail "$python lacks what edge-reclass needs (see above); set PYTHON to one that has edge-reclass[cpu,codecs,service]"

missing=()
command -v debootstrap > /dev/null || missing+=(debootstrap)
command -v qemu-aarch64-static > /dev/null || missing+=(qemu-user-static)
if [ "${#missing[@]}" -gt 0 ]; then
  step "installing ${missing[*]}"
  command -v apt-get > /dev/null || fail "${missing[*]}: not installed, and there is no apt-get to install them with"
  apt-get update -qq || fail "apt-get update failed"
  apt-get install -y -qq "${missing[@]}" > /dev/null || fail "apt-get could not install ${missing[*]}"
fi
qemu="$(command -v qemu-aarch64-static)"
unshare --net --mount true || fail "no namespaces here, so no network cannot be had: run this as root on the machine itself"

mkdir -p "$folder"
root="$folder/bookworm-arm64"
work="$(mktemp -d "$folder/run.XXXXXX")"
embeddings="" service=""
clean_up() {
  for background in $embeddings $service; do
    kill "$background" 2> /dev/null || true
    wait "$background" || true
  done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ ! -f "$root/.complete" ]; then
  step "making an arm64 Debian 12 in $root"
  rm -rf "$root"
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3 bookworm "$work/root" "$mirror" \
    > "$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap failed (see above)"; }
  # Its second stage would start programs from programs. Unpacking is all that Python needs.
  for package in "$work/root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -C "$work/root" --keep-directory-symlink -xf -
    rm "$package"
  done
  # debootstrap links /proc to itself where it may not mount.
  if [ -L "$work/root/proc" ]; then rm "$work/root/proc"; fi
  mkdir -p "$work/root/proc" "$work/root/mnt/run" "$work/root/mnt/clips"
  touch "$work/root/qemu-aarch64-static" "$work/root/dev/null" "$work/root/dev/urandom"
  touch "$work/root/.complete"
  mv "$work/root" "$root"
fi

if [ -z "$archive" ]; then
  step "making the wheelhouse"
  "$checkout/jetson/make_wheelhouse.sh" debian12 --output "$work/wheelhouse"
  archive="$(echo "$work"/wheelhouse/*.tar)"
fi

mkdir "$work/run" "$work/run/tmp" "$work/run/out" "$work/clips" "$work/here"
step "unpacking $(basename "$archive")"
tar -C "$work/run" --no-same-owner -xf "$archive"
house="$(basename "$work/run"/edge-reclass-*-debian12)"
if [ ! -f "$work/run/$house/requirements.lock" ]; then fail "$archive is no debian12 wheelhouse"; fi
cp "$here/no_network.py" "$here/embeddings.py" "$work/run/"
"$python" "$here/clips.py" "$data" "$work/clips"
(cd "$work/clips" && wc -c -- *)

# arm64 ARGUMENT…: the user space's Python, or the virtual environment's, started by qemu itself.
enter=(unshare --net --mount bash "$here/enter.sh" "$root" "$qemu" "$work/run" "$work/clips")
arm64() { "${enter[@]}" "$@"; }
guest=/mnt/run
# Of each clip, from each encoder.
windows=2
venv="$guest/venv/bin/python"

step "arm64: no network"
arm64 /usr/bin/python3 "$guest/no_network.py"

step "arm64: installing, as INSTALL.txt says"
arm64 /usr/bin/python3 -m venv --without-pip "$guest/venv"
pip_wheel="$(basename "$work/run/$house"/wheels/pip-*.whl)"
# Compiling to bytecode takes minutes under qemu, and is left to the first import.
arm64 "$venv" "$guest/$house/wheels/$pip_wheel/pip" install --quiet --no-compile --no-index \
  --find-links "$guest/$house/wheels" --require-hashes -r "$guest/$house/requirements.lock"
arm64 "$venv" -m pip check

# Two processes: each has one thread, and takes minutes.
step "arm64: classify, and embeddings of $windows windows of each clip"
"${enter[@]}" "$venv" "$guest/embeddings.py" /mnt/clips "$guest/out/embeddings.npz" "$windows" \
  > "$work/embeddings.log" 2>&1 &
embeddings=$!
arm64 "$venv" "$guest/venv/bin/edge-reclass" classify --device cpu --jobs 1 --threads 1 --format json \
  --output "$guest/out/verdicts.json" /mnt/clips
wait "$embeddings" || { cat "$work/embeddings.log" >&2; fail "the embeddings were not computed (see above)"; }
embeddings=""
cat "$work/embeddings.log"

step "arm64: build and verify need no more than the wheelhouse has"
arm64 "$venv" -c 'from edge_reclass_export.engine import audit, build, worker; print("their modules import")'
if [ -n "$verify" ]; then
  starter="$(cd "$work/run" && echo venv/lib/python3.*/site-packages/edge_reclass/bundles/starter)"
  arm64 "$venv" "$guest/venv/bin/edge-reclass" verify --device cpu "$guest/$starter"
fi

# The very same files of edge-reclass, with this machine's Python and libraries.
step "here: classify and embeddings"
"$python" -m zipfile -e "$work/run/$house/wheels"/edge_reclass-*.whl "$work/here/package"
export PYTHONPATH="$work/here/package" OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$python" -m edge_reclass classify --device cpu --jobs 1 --threads 1 --format json \
  --output "$work/here/verdicts.json" "$work/clips"
"$python" "$here/embeddings.py" "$work/clips" "$work/here/embeddings.npz" "$windows"

step "comparing"
"$python" "$here/compare.py" "$work/here" "$work/run/out"

# A Unix socket is a file: the process without a network reaches the service through it.
step "arm64: classify through the socket of a service here, sending the files"
"$python" -m edge_reclass serve --socket "$work/run/service" --device cpu --workers 1 > "$work/service.log" 2>&1 &
service=$!
for _ in $(seq 600); do
  if [ -S "$work/run/service" ] || ! kill -0 "$service" 2> /dev/null; then break; fi
  sleep 0.2
done
if [ ! -S "$work/run/service" ]; then cat "$work/service.log" >&2; fail "the service did not start (see above)"; fi
arm64 "$venv" "$guest/venv/bin/edge-reclass" classify --remote "$guest/service" --send-files --format json \
  --output "$guest/out/remote.json" /mnt/clips
kill "$service"
wait "$service" || { cat "$work/service.log" >&2; fail "the service did not end well (see above)"; }
service=""
mkdir "$work/remote"
cp "$work/run/out/remote.json" "$work/remote/verdicts.json"
cp "$work/here/embeddings.npz" "$work/remote/"
"$python" "$here/compare.py" "$work/here" "$work/remote"
step "done"
