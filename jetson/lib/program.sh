# shellcheck shell=bash
# The program: a virtual environment per set of wheels, and a link that switches to it when it is complete.

# program_key < requirements.lock: what an environment is made of. A changed wheel or Python is another environment.
program_key() {
  local digest
  digest=$(sha256sum | cut -c 1-16)
  printf 'py%s-%s' "$PYTHON" "$digest"
}

# wheelhouse_file NAME: one file of the wheelhouse, without unpacking the rest.
wheelhouse_file() {
  if [ -d "$WHEELHOUSE" ]; then cat "$WHEELHOUSE/$1"; else tar -xOf "$WHEELHOUSE" --wildcards "*/$1"; fi
}

# The wheels are for one Python and one kind of processor: say so before pip says something less clear.
check_wheelhouse() {
  local made
  [ -e "$WHEELHOUSE" ] || die 2 "--wheelhouse $WHEELHOUSE: there is no such file or folder" "make one on a machine with a network: jetson/make_wheelhouse.sh $TARGET"
  # The digest alone is compared: both files may have got another name on the way.
  if [ -f "$WHEELHOUSE" ] && [ -f "$WHEELHOUSE.sha256" ] && [ "$(sha256sum < "$WHEELHOUSE" | cut -d ' ' -f 1)" != "$(cut -d ' ' -f 1 "$WHEELHOUSE.sha256")" ]; then
    die 1 "$WHEELHOUSE does not match $WHEELHOUSE.sha256: it was damaged on the way" "copy the archive again"
  fi
  made=$(wheelhouse_file manifest.json | "$SYSTEM_PYTHON" -c '
import json, sys
target = json.load(sys.stdin)["target"]
print(target["name"], target["python"], target["machine"])') ||
    die 1 "$WHEELHOUSE: its manifest.json cannot be read: this is no wheelhouse, or it was damaged" "make one on a machine with a network: jetson/make_wheelhouse.sh $TARGET"
  [ "$made" = "$TARGET $PYTHON $MACHINE" ] ||
    die 1 "$WHEELHOUSE was made for '$made' (target, Python, machine), but this is '$TARGET $PYTHON $MACHINE'" "make the right one on a machine with a network: jetson/make_wheelhouse.sh $TARGET"
}

# unpack_wheelhouse: sets WHEELS, a folder with requirements.lock and wheels/.
unpack_wheelhouse() {
  WHEELS=$WHEELHOUSE
  [ ! -d "$WHEELHOUSE" ] || return 0
  rm -rf "$ROOT$PREFIX"/.unpacked.* # what a power cut left
  WHEELS=$(mktemp -d "$ROOT$PREFIX/.unpacked.XXXXXX")
  tar -xf "$WHEELHOUSE" -C "$WHEELS" --no-same-owner --strip-components 1 ||
    die 1 "$WHEELHOUSE cannot be unpacked into $WHEELS" "copy the archive again, and look for room: df -h $ROOT$PREFIX"
}

# The key of the environment that is in use; empty where there is none, or it was broken off or deleted.
installed_key() {
  local key
  key=$(readlink "$ROOT$PREFIX/venv" 2> /dev/null) || return 0
  key=${key#venvs/}
  [ -f "$ROOT$PREFIX/venvs/$key/.complete" ] && [ -x "$ROOT$PREFIX/venvs/$key/bin/edge-reclass" ] || return 0
  printf '%s' "$key"
}

step_program() {
  local have want
  have=$(installed_key)
  if [ -z "$WHEELHOUSE" ]; then
    case $have in
      "py$PYTHON-"*)
        step same program "$PREFIX/venv ($have)"
        return ;;
      '') checking || die 2 "the program is not installed, and no --wheelhouse was given" "provision.sh --wheelhouse edge-reclass-VERSION-$TARGET.tar …" ;;
      *) checking || die 2 "the installed program ($have) is for another Python than $PYTHON, and no --wheelhouse was given" "provision.sh --wheelhouse edge-reclass-VERSION-$TARGET.tar …" ;;
    esac
    step todo program "needs --wheelhouse edge-reclass-VERSION-$TARGET.tar (jetson/make_wheelhouse.sh $TARGET makes it)"
    return
  fi
  check_wheelhouse
  if [ -e "$ROOT$PREFIX/venv" ] && [ ! -L "$ROOT$PREFIX/venv" ]; then
    die 1 "$PREFIX/venv is a folder of its own, not provision.sh's link: somebody installed by hand" "sudo mv $PREFIX/venv $PREFIX/venv.by-hand"
  fi
  want=$(wheelhouse_file requirements.lock | program_key) || die 1 "$WHEELHOUSE has no requirements.lock" "copy the archive again"
  if [ "$have" = "$want" ]; then
    step same program "$PREFIX/venv ($have)"
    return
  fi
  if checking; then
    step todo program "install $(wheelhouse_file requirements.lock | grep -c '==') wheels into $PREFIX/venvs/$want${have:+, instead of $have}"
    return
  fi
  unpack_wheelhouse
  install_program "$want"
  switch_link "$PREFIX/venv" "venvs/$want"
  step 'done' program "$PREFIX/venv ($want)${have:+, was $have; the old one stays until removed}"
}

# The environment is made at its own place, since its scripts hold the path; .complete is written last.
install_program() {
  local folder=$ROOT$PREFIX/venvs/$1 old site=()
  [ "$DEVICE" = cpu ] || site=(--system-site-packages) # so that JetPack's TensorRT is seen
  say "installing the program into $folder"
  mkdir -p "$(dirname "$folder")"
  for old in "$ROOT$PREFIX"/venvs/py3.*-????????????????; do # what a power cut left; what the link names may still be running
    [ -f "$old/.complete" ] || [ "$old" -ef "$ROOT$PREFIX/venv" ] || rm -rf "$old"
  done
  rm -rf "$folder"
  # shellcheck disable=SC2034  # read by provision.sh
  UNFINISHED=$folder # removed when provision.sh ends early: a full disk does not stay full
  # pip runs out of its own wheel, so Ubuntu's python3-venv is not needed. --ignore-installed: the system's packages may
  # change under us, so nothing of the lock is taken from there.
  "$SYSTEM_PYTHON" -m venv --without-pip "${site[@]}" "$folder" ||
    die 1 "the virtual environment $folder cannot be made" "$SYSTEM_PYTHON -m venv --without-pip $folder   (says why; df -h tells whether the disk is full)"
  local pip=("$WHEELS"/wheels/pip-*.whl)
  [ -f "${pip[0]}" ] || die 1 "$WHEELHOUSE holds no wheel of pip" "make it again: jetson/make_wheelhouse.sh $TARGET"
  PYTHONNOUSERSITE=1 "$folder/bin/python" "${pip[0]}/pip" --isolated install --quiet --disable-pip-version-check \
    --no-index --find-links "$WHEELS/wheels" --require-hashes --ignore-installed -r "$WHEELS/requirements.lock" ||
    die 1 "the wheels of $WHEELHOUSE cannot be installed (see pip's message above); the program in use was not touched" "copy the archive again, or make it again: jetson/make_wheelhouse.sh $TARGET"
  if [ "$DEVICE" = tensorrt ]; then
    PYTHONNOUSERSITE=1 "$folder/bin/python" -c 'import tensorrt; tensorrt.__version__' ||
      die 5 "TensorRT $TENSORRT is installed, but $folder/bin/python cannot import it (see above)" "sudo apt-get install --reinstall nvidia-tensorrt python3-libnvinfer"
  fi
  "$folder/bin/edge-reclass" --version > /dev/null || die 1 "the installed program does not start (see above); the program in use was not touched" "make the archive again: jetson/make_wheelhouse.sh $TARGET"
  sync -f "$folder" # a power cut after .complete must not find empty files
  : > "$folder/.complete"
  # shellcheck disable=SC2034
  UNFINISHED=
}

# The scripts, units that the device needs afterwards, without the checkout.
SHARED=(provision.sh bin lib units)

shared_is_same() {
  local name
  for name in "${SHARED[@]}"; do
    diff -rq --exclude __pycache__ "$1/$name" "$2/$name" > /dev/null 2>&1 || return 1
  done
}

step_share() {
  local source=$1 folder=$ROOT$PREFIX/share/jetson
  if [ "$source" = "$folder" ] || shared_is_same "$source" "$folder"; then
    step same scripts "$PREFIX/share/jetson"
    return
  fi
  if checking; then
    step todo scripts "copy units and scripts to $PREFIX/share/jetson"
    return
  fi
  rm -rf "$folder.next" "$folder.old"
  mkdir -p "$folder.next"
  tar -C "$source" --exclude=__pycache__ -cf - "${SHARED[@]}" | tar -C "$folder.next" --no-same-owner -xf -
  chmod -R u=rwX,go=rX "$folder.next"
  [ ! -e "$folder" ] || mv -T "$folder" "$folder.old"
  mv -T "$folder.next" "$folder"
  rm -rf "$folder.old"
  step 'done' scripts "$PREFIX/share/jetson"
}
