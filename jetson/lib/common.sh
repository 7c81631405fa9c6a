# shellcheck shell=bash
# Saying what happens, failing with the command that fixes it, and writing files whole. Sourced, never run.

# Set by whoever sources this: ROOT is empty on a device, a folder in tests; CHECK is 1 where nothing may be written.
: "${ROOT:=}" "${CHECK:=0}"

# shellcheck disable=SC2034  # these are for whoever sources this
{
  STATE=/var/lib/edge-reclass
  ENGINES=$STATE/engines
  BUNDLES=$STATE/bundles
  ETC=/etc/edge-reclass
  SETTINGS=$ETC/provision.conf
}
CHANGES=0
TODO=0
UNFORESEEN=0

say() { printf '%s\n' "$*" >&2; }

# step STATE NAME TEXT: one line per step. STATE: same, done, todo, note.
step() {
  case $1 in
    done) CHANGES=$((CHANGES + 1)) ;;
    todo) TODO=$((TODO + 1)) ;;
  esac
  local words
  case $1 in same) words=unchanged ;; todo) words='to do' ;; *) words=$1 ;; esac
  printf '%-9s  %-9s %s\n' "$words" "$2" "$3" >&2
}

# die CODE MESSAGE [FIX]: what was wrong, and the command that fixes it. Its code is 100 higher until the script ends, so
# that what a command such as tar ends with is never taken for something that was said.
die() {
  local code=$1
  say "error: $2"
  [ -z "${3:-}" ] || say "  to fix it: $3"
  exit $((100 + code))
}

# What no step foresaw, such as a full disk: the command's own message stands above.
unexpected() {
  UNFORESEEN=1
  say "error: $2 failed (line $3 of ${4##*/}, exit code $1); what was in use before is still in use"
  say "  to fix it: df -h; then run this again"
}

tidy() { :; } # whoever sources this says what is to be removed at the end

ended() {
  local code=$1
  tidy
  if [ "$code" -gt 100 ] && [ "$code" -le 105 ]; then code=$((code - 100)); elif [ "$UNFORESEEN" = 1 ]; then code=1; fi
  exit "$code"
}

# Of an error inside of a command substitution, the line that made it is reported, once.
trap 'code=$?; if [ "$BASH_SUBSHELL" = 0 ] && { [ "$code" -le 100 ] || [ "$code" -gt 105 ]; }; then unexpected "$code" "$BASH_COMMAND" "$LINENO" "${BASH_SOURCE[0]}"; fi' ERR
trap 'ended "$?"' EXIT

checking() { [ "$CHECK" = 1 ]; }

# A path that goes into a unit, a configuration or a command: nothing that any of them would read as more than a name.
require_plain_path() {
  case $2 in
    /*) ;;
    *) die 2 "$1: expected an absolute path, got '$2'" ;;
  esac
  case $2 in
    *[\"\'\\%\$\`\;@]* | *[[:cntrl:]]*)
      die 2 "$1: '$2' has a character that a systemd unit would read as more than a name" "use a folder without quotes, backslash, % \$ \` ; @" ;;
    */../* | */.. | */./* | */.)
      die 2 "$1: expected a path without . and .., got '$2'" ;;
  esac
}

# write_file PATH MODE TEXT: TEXT and a line's end, complete or not at all. 0: written, 1: it was so already. It is called
# in conditions, where bash goes on after errors: each is looked at. Never in a pipeline, whose end die would not end.
write_file() {
  local path=$ROOT$1 mode=$2 text=$3 temporary
  if [ -f "$path" ] && cmp -s "$path" <(printf '%s\n' "$text") && [ "$(stat -c %a "$path")" = "${mode#0}" ]; then
    return 1
  fi
  temporary=$(mktemp "$path.XXXXXX") || die 1 "$path cannot be written" "df -h $(dirname "$path")"
  if ! printf '%s\n' "$text" > "$temporary" || ! chmod "$mode" "$temporary" || ! mv -f "$temporary" "$path"; then
    rm -f "$temporary"
    die 1 "$path cannot be written; what was there before is still there" "df -h $(dirname "$path")"
  fi
}

# switch_link LINK TARGET: a symbolic link that points to the old or to the new, never to nothing.
switch_link() {
  local link=$ROOT$1 next
  next=$(dirname "$link")/.next-$(basename "$link")
  rm -f "$next"
  ln -s "$2" "$next"
  mv -fT "$next" "$link"
}

# own OWNER PATH…: only root can give files away; a test's root folder may belong to anybody.
own() {
  local owner=$1
  shift
  [ "$(id -u)" != 0 ] || chown "$owner" "$@"
}

# setting FILE KEY: the value in KEY=value lines; the file is read, never run. Empty where there is none.
setting() {
  local line found=
  [ -f "$ROOT$1" ] || return 0
  while IFS= read -r line; do
    case $line in "$2="*) found=${line#*=} ;; esac
  done < "$ROOT$1"
  printf '%s' "$found"
}

uid_of() {
  if [ -n "$ROOT" ]; then
    [ ! -f "$ROOT/etc/passwd" ] || awk -F: -v name="$1" '$1 == name { print $3 ":" $4 }' "$ROOT/etc/passwd"
  else
    { getent passwd "$1" || true; } | awk -F: '{ print $3 ":" $4 }' # 2: there is no such user
  fi
}

# One provisioning or bundle switch at a time. The lock ends with the process.
take_lock() {
  mkdir -p "$ROOT$STATE"
  exec 9> "$ROOT$STATE/.lock"
  flock -n 9 || die 1 "another provisioning or bundle update is running on this machine" "wait for it, then run this again"
}
