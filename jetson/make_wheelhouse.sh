#!/usr/bin/env bash
# Every wheel that a device without a network needs, in one archive per target (jetson/wheelhouse/README.md).
set -euo pipefail
shopt -s inherit_errexit

usage() {
  cat <<'TEXT'
usage: jetson/make_wheelhouse.sh TARGET|all [--output DIR] [--deb] [--update]

Downloads the wheels of jetson/wheelhouse/TARGET.lock, builds edge-reclass from this checkout, and writes
edge-reclass-VERSION-TARGET.tar, its .sha256 and its bill of materials .cdx.json into DIR, and beside them
edge-reclass-appliance, the program that installs them: a device needs that file and its archive, and no checkout.
Needs a network and Python 3.10 or newer ($PYTHON, by default python3); the machine need not be the target's kind.
docs/releases.md says how to sign all of it.

  TARGET        jetpack6, jetpack7, debian12, debian12-amd64, or all
  --output DIR  where the archives go [default: dist/ of the checkout]
  --deb         make a Debian package as well: edge-reclass_VERSION+SYSTEM_ARCHITECTURE.deb
  --update      resolve pyproject.toml anew and rewrite the lock; without it, exactly the lock is downloaded
  -h, --help    this text

Exit codes: 0 done; 1 something failed, and nothing half-written stays; 2 wrong usage.
TEXT
}

fail() { printf 'make_wheelhouse: %s\n' "$1" >&2; exit "${2:-1}"; }
say() { printf 'make_wheelhouse: %s\n' "$*" >&2; }

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
python="${PYTHON:-python3}"
locks="$here/wheelhouse"

wanted=""
output="$root/dist"
update=""
deb=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --update) update=yes ;;
    --deb) deb=(--deb) ;;
    --output)
      if [ $# -lt 2 ] || [ -z "$2" ]; then fail "--output: expected a folder; see --help" 2; fi
      output="$2"
      shift
      ;;
    --output=?*) output="${1#--output=}" ;;
    -*) fail "no option $1; see --help" 2 ;;
    *)
      if [ -n "$wanted" ]; then fail "one target or all, got $wanted and $1; see --help" 2; fi
      wanted="$1"
      ;;
  esac
  shift
done
if [ -z "$wanted" ]; then fail "no target: expected jetpack6, jetpack7, debian12, debian12-amd64 or all; see --help" 2; fi

command -v "$python" > /dev/null || fail "no $python; set PYTHON to a Python 3.10 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$python is $("$python" -V 2>&1); set PYTHON to a Python 3.10 or newer"

# The helper's modules and the table of systems lie in the checkout: leave no bytecode there.
helper() { PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$here:$root/runtime" "$1" -m wheelhouse "${@:2}"; }

mapfile -t known < <(helper "$python" targets)
targets=()
for name in "${known[@]}"; do
  if [ "$wanted" = all ] || [ "$wanted" = "$name" ]; then targets+=("$name"); fi
done
if [ "${#targets[@]}" -eq 0 ]; then fail "no target $wanted: expected one of ${known[*]}, or all" 2; fi

made_output=""
if [ ! -d "$output" ]; then
  mkdir -p "$output" || fail "cannot make the folder $output"
  made_output=yes
fi
# In the output folder, so that what is finished is moved into place within one file system.
work="$(mktemp -d "$output/.wheelhouse.XXXXXX")" || fail "cannot write into $output"
new_lock=""
clean_up() {
  rm -rf "$work"
  if [ -n "$new_lock" ]; then rm -f "$new_lock"; fi
  if [ -n "$made_output" ]; then rmdir "$output" 2> /dev/null || true; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

commit="$(git -C "$root" rev-parse HEAD 2> /dev/null || true)"
modified=()
if [ -n "$commit" ]; then
  changes="$(git -C "$root" status --porcelain -- runtime export benchmarks pyproject.toml README.md LICENSE)"
  if [ -n "$changes" ]; then
    modified=(--modified)
    say "note: the wheel of edge-reclass holds changes that are not committed; the manifest says so"
  fi
  date="$(git -C "$root" log -1 --format=%ct)"
else
  # No checkout: the wheel's own default time, 2020-02-02.
  date=1580601600
fi
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$date}"
case "$SOURCE_DATE_EPOCH" in *[!0-9]*) fail "SOURCE_DATE_EPOCH: expected seconds since 1970, got $SOURCE_DATE_EPOCH" ;; esac

say "preparing the tools"
"$python" -m venv "$work/tools" || fail "cannot make a virtual environment with $python (Debian: apt-get install python3-venv)"
tools="$work/tools/bin/python"
pip() { "$tools" -m pip --disable-pip-version-check --quiet "$@"; }
pip install --constraint "$root/constraints/development.txt" hatchling packaging ||
  fail "cannot install the build tool hatchling: is there a network?"
if [ -n "$update" ]; then pip install uv || fail "cannot install uv, which resolves: is there a network?"; fi

say "building edge-reclass from $root"
mkdir "$work/own"
(cd "$root" && "$tools" -m hatchling build --target wheel --directory "$work/own" > "$work/build.log" 2>&1) || {
  cat "$work/build.log" >&2
  fail "edge-reclass could not be built"
}

PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root/runtime" "$python" -c '
import sys
from pathlib import Path
from edge_reclass_appliance.program import as_one_file
Path(sys.argv[1]).write_bytes(as_one_file())
Path(sys.argv[1]).chmod(0o755)' "$work/edge-reclass-appliance" || fail "the program that installs could not be made"

# resolve TARGET FILE: what pyproject.toml asks for, with the hashes of all files that the index has of each version.
resolve() {
  local options
  mapfile -t options < <(helper "$tools" uv-options "$1")
  helper "$tools" bounds "$1" > "$work/bounds.txt"
  # pip travels along: Ubuntu and Debian have none in a fresh virtual environment.
  echo pip > "$work/pip.in"
  "$tools" -m uv pip compile --quiet --only-binary :all: --generate-hashes --no-annotate --no-header \
    --constraint "$work/bounds.txt" "${options[@]}" --output-file "$2" "$root/pyproject.toml" "$work/pip.in" \
    > /dev/null || fail "$1: pyproject.toml does not resolve (see above)"
}

# make TARGET: the archive, and with --update the lock, moved into place when all of it is good.
make() {
  local target="$1" requirements="$locks/$1.lock" wheels="$work/$1/wheels" options name
  local lock_options=()
  mkdir -p "$wheels" "$work/$target/out"
  if [ -n "$update" ]; then
    say "$target: resolving"
    requirements="$work/$target/resolved.txt"
    resolve "$target" "$requirements"
    new_lock="$locks/.$target.lock.new"
    lock_options=(--new-lock "$new_lock")
  elif [ ! -f "$requirements" ]; then
    fail "$requirements does not exist; make it with: jetson/make_wheelhouse.sh $target --update"
  fi
  say "$target: downloading"
  mapfile -t options < <(helper "$tools" pip-options "$target")
  pip download --dest "$wheels" --no-deps --only-binary=:all: --require-hashes "${options[@]}" \
    --requirement "$requirements" || fail "$target: a wheel could not be downloaded as locked (see above)"
  cp "$work/own"/*.whl "$wheels/"
  helper "$tools" pack "$target" --wheels "$wheels" --output "$work/$target/out" --commit "$commit" \
    "${modified[@]}" --date "$SOURCE_DATE_EPOCH" "${deb[@]}" "${lock_options[@]}" || fail "$target: no archive was made (see above)"
  if [ -n "$update" ]; then
    mv -f "$new_lock" "$locks/$target.lock"
    new_lock=""
  fi
  cp -p "$work/edge-reclass-appliance" "$work/$target/out/"
  name="$(basename "$work/$target/out"/*.tar)"
  # An archive never stands beside another one's checksum.
  rm -f "$output/$name.sha256"
  mv -f "$work/$target/out/$name" "$output/$name"
  mv -f "$work/$target/out"/* "$output"
  made_output=""
  rm -rf "${work:?}/$target"
  printf '%s\n' "$output/$name"
}

for target in "${targets[@]}"; do make "$target"; done
