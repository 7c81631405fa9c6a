#!/usr/bin/env bash
# From a flashed board to a classified library, offline. Every step looks first and changes only what differs; a step that
# fails leaves what was there before, and names the command that fixes it. docs/jetson.md describes the whole way.
set -Eeuo pipefail
umask 022 # the service, which is another user, reads what is made here

usage() {
  cat << 'END'
usage: provision.sh [--check] [--yes] [OPTION…]

  --check                only look: what would be done, what is missing; writes nothing
  --yes                  go on without asking
  --wheelhouse TAR|DIR   the wheels for this machine (jetson/make_wheelhouse.sh makes them); the first time needed
  --bundle DIR|TAR       the bundle to use           [default: the one in use, else the starter bundle]
  --music DIR            the library                 [default: /srv/music]
  --results DIR          where verdicts.jsonl goes   [default: /var/lib/edge-reclass/results]
  --calendar WHEN        when the library is run, as systemd writes it   [default: *-*-* 02:30:00]
  --user NAME            whom the service runs as    [default: edge-reclass]
  --prefix DIR           where the program goes      [default: /opt/edge-reclass]
  --no-units             no systemd units (containers, chroots)
  --root DIR             work on this folder as if it were / (tests)

Options are remembered in /etc/edge-reclass/provision.conf; a later run needs only what changes.

Exit codes: 0 done, or nothing to do; 1 a step failed; 2 wrong usage; 3 --check found something to do; 4 the bundle is
invalid or does not agree with its reference vectors here; 5 the machine is not supported, or TensorRT is missing.
END
}

HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
ROOT=''
CHECK=0
YES=0
WITH_UNITS=1
WHEELHOUSE='' BUNDLE='' PREFIX='' SERVICE_USER='' MUSIC='' RESULTS='' CALENDAR=''
WHEELS='' BUNDLE_ID='' UNFINISHED='' LOCKED=0

# shellcheck source=SCRIPTDIR/lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=SCRIPTDIR/lib/detect.sh
. "$HERE/lib/detect.sh"
# shellcheck source=SCRIPTDIR/lib/program.sh
. "$HERE/lib/program.sh"
# shellcheck source=SCRIPTDIR/lib/bundles.sh
. "$HERE/lib/bundles.sh"
# shellcheck source=SCRIPTDIR/lib/units.sh
. "$HERE/lib/units.sh"

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --check) CHECK=1 ;;
      --yes) YES=1 ;;
      --no-units) WITH_UNITS=0 ;;
      -h | --help)
        usage
        exit 0
        ;;
      --wheelhouse | --bundle | --music | --results | --calendar | --user | --prefix | --root)
        if [ $# -lt 2 ] || [ -z "$2" ]; then die 2 "$1 needs a value" "provision.sh --help"; fi
        case $1 in
          --wheelhouse) WHEELHOUSE=$(realpath -m -- "$2") ;;
          --bundle) BUNDLE=$(realpath -m -- "$2") ;;
          --music) MUSIC=$2 ;;
          --results) RESULTS=$2 ;;
          --calendar) CALENDAR=$2 ;;
          --user) SERVICE_USER=$2 ;;
          --prefix) PREFIX=$2 ;;
          --root) ROOT=$2 ;;
        esac
        shift
        ;;
      *) die 2 "unknown option $1" "provision.sh --help" ;;
    esac
    shift
  done
}

# remembered NAME DEFAULT: what was given, else what an earlier run was given, else the default.
remembered() {
  local value=${!1}
  [ -n "$value" ] || value=$(setting "$SETTINGS" "$1")
  printf -v "$1" '%s' "${value:-$2}"
}

# require_ours OPTION PATH NAME…: of an existing folder, owner and mode are changed only where it is empty, or a NAME in
# it shows that it is ours.
require_ours() {
  local option=$1 path=$2 name
  shift 2
  [ -d "$ROOT$path" ] && [ -n "$(ls -A "$ROOT$path" 2> /dev/null)" ] || return 0
  for name in "$@"; do [ ! -e "$ROOT$path/$name" ] || return 0; done
  [ "$(stat -c %u:%g "$ROOT$path")" != "$(uid_of "$SERVICE_USER")" ] || return 0
  die 2 "$option: $path holds something else, and would get another owner and mode" "name a folder that is not there yet, such as ${path%/}/edge-reclass"
}

settle() {
  ROOT=${ROOT%/}
  if [ -n "$ROOT" ]; then
    [ -d "$ROOT" ] || die 2 "--root $ROOT: there is no such folder"
    ROOT=$(realpath -- "$ROOT")
  fi
  remembered PREFIX /opt/edge-reclass
  remembered SERVICE_USER edge-reclass
  remembered MUSIC /srv/music
  remembered RESULTS "$STATE/results"
  remembered CALENDAR '*-*-* 02:30:00'
  local name
  for name in PREFIX MUSIC RESULTS; do require_plain_path "--${name,,}" "${!name}"; done
  case $PREFIX in *' '*) die 2 "--prefix: '$PREFIX' has a blank, which the scripts' first lines cannot hold" ;; esac
  case $PREFIX/ in /home/* | /root/* | /run/* | /tmp/* | /var/tmp/*) die 2 "--prefix: the service sees nothing of $PREFIX" "provision.sh --prefix /opt/edge-reclass …" ;; esac
  [ "$RESULTS" != "$MUSIC" ] || die 2 "--results: $RESULTS is the music, which is only read; expected a folder of its own"
  [[ $SERVICE_USER =~ ^[a-z_][a-z0-9_-]{0,30}$ ]] || die 2 "--user: expected a user's name in small letters, got '$SERVICE_USER'"
  [ "$SERVICE_USER" != root ] || die 2 "--user: the service does not run as root" "provision.sh --user edge-reclass …"
  [[ $CALENDAR =~ ^[A-Za-z0-9*:,./~\ -]+$ ]] || die 2 "--calendar: expected a time as systemd writes it, got '$CALENDAR'" "systemd-analyze calendar '*-*-* 02:30:00'"
  if [ "$WITH_UNITS" = 1 ] && command -v systemd-analyze > /dev/null && ! systemd-analyze calendar -- "$CALENDAR" > /dev/null 2>&1; then
    die 2 "--calendar: systemd does not understand '$CALENDAR'" "systemd-analyze calendar '*-*-* 02:30:00'"
  fi
  [ "$PREFIX" = /opt/edge-reclass ] || require_ours --prefix "$PREFIX" venvs share/jetson/provision.sh
  [ "$RESULTS" = "$STATE/results" ] || require_ours --results "$RESULTS" verdicts.jsonl verdicts.jsonl.partial
}

agree() {
  checking && return
  [ -n "$ROOT" ] || [ "$(id -u)" = 0 ] || die 2 "this changes the machine and needs root" "sudo $0 …   (or --check, which only looks)"
  [ "$YES" = 0 ] || return 0
  [ -t 0 ] || die 2 "there is no terminal to ask on" "provision.sh --yes …"
  local answer
  read -r -p "Go on, and install edge-reclass into $ROOT$PREFIX? [y/N] " answer
  case $answer in y | Y | yes) ;; *) die 2 "nothing was changed" ;; esac
}

# The lock makes it ours alone.
tidy() { [ "$LOCKED" = 0 ] || rm -rf "$ROOT$PREFIX"/.unpacked.* ${UNFINISHED:+"$UNFINISHED"}; }

# folder PATH MODE OWNER: adds to $made what differs.
made=()
folder() {
  local path=$ROOT$1 mode=$2 owner=$3 have
  have=$(stat -c '%a %u:%g' "$path" 2> /dev/null || true)
  if [ "$(id -u)" = 0 ]; then [ "$have" != "$mode $owner" ] || return 0; else [ "${have% *}" != "$mode" ] || return 0; fi
  made+=("$1")
  checking && return
  mkdir -p "$path"
  own "$owner" "$path"
  chmod "$mode" "$path"
}

step_user() {
  if [ -n "$(uid_of "$SERVICE_USER")" ]; then
    step same user "$SERVICE_USER"
  elif checking; then
    step todo user "add the system user $SERVICE_USER, without a home or a shell"
  else
    useradd ${ROOT:+--prefix "$ROOT"} --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin "$SERVICE_USER" ||
      die 1 "the user $SERVICE_USER could not be added" "sudo useradd --system --user-group $SERVICE_USER"
    step 'done' user "$SERVICE_USER"
  fi
}

step_folders() {
  local ids
  ids=$(uid_of "$SERVICE_USER")
  ids=${ids:-0:0}
  made=()
  folder "$PREFIX" 755 0:0
  folder "$ETC" 755 0:0
  folder "$STATE" 755 0:0
  # An engine is native code: only root writes engines and bundles, the service reads them.
  folder "$BUNDLES" 755 0:0
  folder "$ENGINES" 755 "0:${ids#*:}" # its group may read the secret by which engines are known
  folder "$RESULTS" 2750 "$ids"
  if [ ! -d "$ROOT$MUSIC" ]; then folder "$MUSIC" 755 0:0; fi # somebody's music keeps its modes
  if [ "${#made[@]}" = 0 ]; then
    step same folders "$STATE, $RESULTS"
  elif checking; then
    step todo folders "make, or set owner and mode of: ${made[*]}"
  else
    step 'done' folders "${made[*]}"
  fi
}

step_settings() {
  local name text=''
  for name in PREFIX SERVICE_USER MUSIC RESULTS CALENDAR; do text+="$name=${!name}"$'\n'; done
  text=${text%$'\n'}
  if [ "$text" = "$(cat "$ROOT$SETTINGS" 2> /dev/null)" ]; then
    step same settings "$SETTINGS"
  elif checking; then
    step todo settings "write $SETTINGS"
  else
    write_file "$SETTINGS" 0644 "$text" || true
    step 'done' settings "$SETTINGS"
  fi
}

# What a smoke test holds for. It runs again when any of it changes.
smoke_key() { printf '%s bundle=%s user=%s jobs=%s batch=%s' "$(verified_for)" "$(bundle_named current)" "$SERVICE_USER" "$JOBS" "$BATCH"; }

# As the service: its user with the groups that gpu.conf gives it, without which the driver's device nodes stay shut.
# The user of a --root folder is not one of the machine that runs this: there, the smoke test runs as the caller.
as_service() {
  local group groups=()
  if [ -n "$ROOT" ]; then
    "$@"
    return
  fi
  if [ "$DEVICE" != cpu ]; then
    # runuser takes the groups that it is given for all: the user's own as well.
    for group in $(id -Gn "$SERVICE_USER") $(gpu_groups); do groups+=(--supp-group "$group"); done
  fi
  runuser -u "$SERVICE_USER" --group "$(id -gn "$SERVICE_USER")" "${groups[@]}" -- "$@"
}

step_smoke() {
  local said arguments
  if [ "$(cat "$ROOT$STATE/smoke" 2> /dev/null)" = "$(smoke_key)" ]; then
    step same smoke "passed before with this program, bundle and machine"
    return
  fi
  if checking; then
    step todo smoke "classify a made tone as $SERVICE_USER"
    return
  fi
  read -r -a arguments <<< "$(device_arguments)"
  arguments=("${arguments[@]/#"$ENGINES"/"$ROOT$ENGINES"}")
  said=$(cd / && as_service env PYTHONNOUSERSITE=1 ORT_DISABLE_TELEMETRY=1 "$ROOT$PREFIX/venv/bin/python" "$ROOT$PREFIX/share/jetson/bin/smoke.py" \
    "$ROOT$PREFIX/venv/bin/edge-reclass" classify --bundle "$ROOT$BUNDLES/current" "${arguments[@]}") ||
    die 1 "the smoke test failed (see above): a made tone gets no answer as user $SERVICE_USER" "sudo $PREFIX/venv/bin/edge-reclass doctor $BUNDLES/current --device $DEVICE --engines $ENGINES"
  write_file "$STATE/smoke" 0644 "$(smoke_key)" || true
  step 'done' smoke "$said"
}

# What this machine was when it was provisioned.
step_state() {
  local text before
  text=$(printf 'TARGET=%s\nJETPACK=%s\nL4T=%s\nTENSORRT=%s\nPYTHON=%s\nPROGRAM=%s\nBUNDLE=%s' \
    "$TARGET" "$JETPACK" "$L4T" "$TENSORRT" "$PYTHON" "$(installed_key)" "$(bundle_named current)")
  before=$(cat "$ROOT$STATE/state" 2> /dev/null || true)
  if [ "$text" = "$before" ]; then
    step same state "$STATE/state"
  elif checking; then
    step todo state "write $STATE/state"
  else
    write_file "$STATE/state" 0644 "$text" || true
    step 'done' state "$STATE/state"
  fi
}

tell_upgrade() {
  local before tensorrt
  [ -f "$ROOT$STATE/state" ] || return 0
  before=$(setting "$STATE/state" L4T) tensorrt=$(setting "$STATE/state" TENSORRT)
  if [ "$before" != "$L4T" ] || [ "$tensorrt" != "$TENSORRT" ]; then
    step note jetpack "was L4T ${before:-none} with TensorRT ${tensorrt:-none}, is L4T ${L4T:-none} with TensorRT ${TENSORRT:-none}: engines are built again, none is reused"
  fi
}

step_command() {
  local link=$PREFIX/bin/edge-reclass-bundle
  if [ "$(readlink "$ROOT$link" 2> /dev/null)" = ../share/jetson/bin/edge-reclass-bundle ]; then
    step same command "$link"
  elif checking; then
    step todo command "link $link"
  else
    mkdir -p "$ROOT$PREFIX/bin"
    switch_link "$link" ../share/jetson/bin/edge-reclass-bundle
    step 'done' command "$link"
  fi
}

finish() {
  if checking; then
    if [ "$TODO" = 0 ]; then
      say "nothing to do: everything is in place"
      return
    fi
    say "$TODO to do: run this again without --check (as root, with --yes)"
    exit 3
  fi
  if [ "$CHANGES" = 0 ]; then say "nothing was changed: everything is in place"; else say "done: $CHANGES steps changed something"; fi
  say "bundle $(bundle_named current) on $DEVICE; music $MUSIC; results $RESULTS/verdicts.jsonl"
  [ "$WITH_UNITS" = 0 ] || say "next: systemctl start edge-reclass.service   (or wait for $CALENDAR);  journalctl -u edge-reclass"
}

main() {
  parse "$@"
  settle
  detect
  describe_machine
  set_limits
  say "limits: engines up to batch $BATCH, $JOBS jobs, memory $MEMORY_MAX; reckoned from memory and cores, not measured"
  require_tensorrt
  SYSTEM_PYTHON=$(find_python) || exit
  agree
  if ! checking; then
    take_lock
    LOCKED=1
  fi
  tell_upgrade
  step_user
  step_folders
  step_program
  step_share "$HERE"
  step_command
  step_bundle
  step_settings
  if [ "$WITH_UNITS" = 1 ]; then step_units; else step note units "left out (--no-units)"; fi
  step_smoke
  step_state
  finish
}

main "$@"
