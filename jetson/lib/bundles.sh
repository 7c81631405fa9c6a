# shellcheck shell=bash
# Bundles, A and B: each lies in a folder of its own, named after its content; `current` and `previous` are links. A new
# bundle is checked, built and verified before `current` points to it.
# shellcheck disable=SC2153  # BUNDLES is set in common.sh

# ONNX Runtime 1.29 and newer reports home unless it is told not to; see edge-reclass.service.
program() { PYTHONNOUSERSITE=1 ORT_DISABLE_TELEMETRY=1 "$ROOT$PREFIX/venv/bin/edge-reclass" "$@"; }
venv_python() { PYTHONNOUSERSITE=1 "$ROOT$PREFIX/venv/bin/python" "$@"; }

bundle_named() { readlink "$ROOT$BUNDLES/$1" 2> /dev/null || true; }

# inspect_bundle FOLDER: checks every hash; prints "<name>-<digest, 12 digits> <1 where a stage has a graph>".
inspect_bundle() {
  local manifest
  manifest=$(program inspect "$1" --format json) || return 1
  printf '%s' "$manifest" | venv_python -c '
import json, re, sys
bundle = json.load(sys.stdin)
name = re.sub(r"[^A-Za-z0-9._-]", "_", bundle["name"])
graphs = any(stage["encoder"]["kind"] == "waveform" for stage in bundle["stages"])
print("%s-%s %d" % (name, bundle["digest"][:12], graphs))'
}

# intact ID: whether the installed bundle is whole, and still the one that its folder's name says. A manifest that was
# changed has right hashes, and another digest.
intact() {
  local found
  found=$(inspect_bundle "$ROOT$BUNDLES/$1") || return 1
  [ "${found% *}" = "$1" ] || {
    say "error: $ROOT$BUNDLES/$1: its manifest was changed, which makes it ${found% *}"
    return 1
  }
}

# What a verification holds for: another program, JetPack or TensorRT makes it void. So does what was compared: before
# "of=cascade", it was encoders alone.
verified_for() { printf 'of=cascade device=%s l4t=%s tensorrt=%s program=%s max_batch=%s' "$DEVICE" "${L4T:-none}" "${TENSORRT:-none}" "$(installed_key)" "$BATCH"; }

# Whether only the program is another one: its engines' keys are still those of this machine.
same_machine() {
  local before
  before=$(sed 's/ program=[^ ]*//' "$ROOT$BUNDLES/.verified/$1" 2> /dev/null) || return 1
  [ "$before" = "$(verified_for | sed 's/ program=[^ ]*//')" ]
}

is_verified() { [ "$(cat "$ROOT$BUNDLES/.verified/$1" 2> /dev/null)" = "$(verified_for)" ]; }

# unpack_bundle SOURCE FOLDER: a copy of regular files and folders, without engines, which never travel.
unpack_bundle() {
  local source=$1 folder=$2 odd inner manifests names
  mkdir -p "$folder"
  if [ -d "$source" ]; then
    tar -C "$source" --exclude=./engines -cf - . | tar -C "$folder" --no-same-owner -xf - || return 1
  elif [ -f "$source" ]; then
    names=$(tar -tf "$source") || return 1 # whole, before grep ends: a pipe that breaks would read as "none found"
    if grep -qE '^/|(^|/)\.\.(/|$)' <<< "$names"; then
      say "error: $source names files outside of its own folder: it is no bundle"
      return 1
    fi
    tar -xf "$source" -C "$folder" --no-same-owner --exclude=engines || return 1
  else
    say "error: $source: there is no such file or folder"
    return 1
  fi
  odd=$(find "$folder" ! -type f ! -type d -print -quit)
  if [ -n "$odd" ]; then
    say "error: $source holds ${odd#"$folder"/}, which is neither a file nor a folder"
    return 1
  fi
  if [ ! -f "$folder/bundle.yaml" ]; then # an archive of the folder, not of what is in it
    manifests=("$folder"/*/bundle.yaml)
    if [ "${#manifests[@]}" != 1 ] || [ ! -f "${manifests[0]}" ]; then
      say "error: $source: expected one bundle.yaml inside, found none or several"
      return 1
    fi
    inner=$(dirname "${manifests[0]}")
    mv "$inner" "$folder.inner" && rm -rf "$folder" && mv "$folder.inner" "$folder" || return 1
  fi
  chmod -R u=rwX,go=rX "$folder"
}

# engines_in_place FOLDER: whether `build` would have nothing to do.
engines_in_place() {
  [ "$DEVICE" = tensorrt ] || return 0
  program build "$1" --engines "$ROOT$ENGINES" --max-batch "$BATCH" --dry-run --format json 2> /dev/null | venv_python -c '
import json, sys
sys.exit(any(stage["action"] not in ("keep", "cpu") for stage in json.load(sys.stdin)))' 2> /dev/null
}

# prepare_bundle FOLDER GRAPHS [--rebuild]: engines for this device; then every stage, with its head, has to answer to
# made audio here, and as the references say.
prepare_bundle() {
  local folder=$1 graphs=$2 on=(--device cpu)
  shift 2
  if [ "$DEVICE" = tensorrt ] && [ "$graphs" = 1 ]; then
    program build "$folder" --engines "$ROOT$ENGINES" --max-batch "$BATCH" --workspace "$WORKSPACE_MIB" --format json "$@" > /dev/null || return 1
    on=(--device tensorrt --engines "$ROOT$ENGINES")
  fi
  program verify "$folder" "${on[@]}" >&2
}

mark_verified() {
  mkdir -p "$ROOT$BUNDLES/.verified"
  write_file "$BUNDLES/.verified/$1" 0644 "$(verified_for)" || true
}

# switch_bundle ID: `previous` is set first, so that a power cut in between loses nothing that is in use.
switch_bundle() {
  local before
  before=$(bundle_named current)
  if [ -n "$before" ] && [ "$before" != "$1" ]; then switch_link "$BUNDLES/previous" "$before"; fi
  switch_link "$BUNDLES/current" "$1"
}

# refuse_bundle INCOMING MESSAGE FIX: nothing of it stays, and what is in use is not touched.
refuse_bundle() {
  case $1 in */.incoming.*) rm -rf "$1" "$1.inner" ;; esac
  die 4 "$2; the bundle in use stays: $(bundle_named current | grep . || echo none)" "$3"
}

# in_place FOLDER: whether the same bundle is installed, whole and verified already; sets BUNDLE_ID then.
in_place() {
  local found id
  found=$(inspect_bundle "$1" 2> /dev/null) || return 1
  id=${found% *}
  [ -d "$ROOT$BUNDLES/$id" ] && is_verified "$id" || return 1
  [ "$(realpath "$1")" = "$(realpath "$ROOT$BUNDLES/$id")" ] || intact "$id" 2> /dev/null || return 1
  engines_in_place "$ROOT$BUNDLES/$id" || return 1
  BUNDLE_ID=$id
}

# install_bundle SOURCE: sets BUNDLE_ID. The bundle in use stays as it is unless everything went well.
install_bundle() {
  local source=$1 incoming found graphs id
  if [ -d "$source" ] && in_place "$source"; then return; fi
  rm -rf "$ROOT$BUNDLES"/.incoming.* # what a power cut left
  incoming=$(mktemp -d "$ROOT$BUNDLES/.incoming.XXXXXX")
  chmod 755 "$incoming"
  unpack_bundle "$source" "$incoming" || refuse_bundle "$incoming" "$source cannot be taken" "copy the bundle again; tar -tf shows what is in an archive"
  found=$(inspect_bundle "$incoming") || refuse_bundle "$incoming" "$source is no valid bundle (see above)" "edge-reclass inspect $source"
  read -r id graphs <<< "$found"
  BUNDLE_ID=$id
  if [ -d "$ROOT$BUNDLES/$id" ] && intact "$id" 2> /dev/null; then
    rm -rf "$incoming"
    incoming=$ROOT$BUNDLES/$id
  fi
  if [ "$incoming" != "$ROOT$BUNDLES/$id" ] || ! is_verified "$id" || ! engines_in_place "$incoming"; then
    say "checking bundle $id on this device"
    prepare_bundle "$incoming" "$graphs" || refuse_bundle "$incoming" \
      "bundle $id was not built, or did not agree with its reference vectors on this device (see above)" \
      "edge-reclass-bundle install $source   again, after what is said above was fixed"
    if [ "$incoming" != "$ROOT$BUNDLES/$id" ]; then
      sync -f "$incoming" # a power cut after the link was switched must not find empty files
      # damaged, or it would have been taken as it is
      [ ! -e "$ROOT$BUNDLES/$id" ] || mv -T "$ROOT$BUNDLES/$id" "$incoming.old"
      mv -T "$incoming" "$ROOT$BUNDLES/$id"
      rm -rf "$incoming.old"
    fi
    mark_verified "$id"
  fi
}

# starter_bundle: the one inside the program.
starter_bundle() { venv_python -c 'from edge_reclass.bundle import starter_path; print(starter_path())'; }

step_bundle() {
  local current source=$BUNDLE found
  current=$(bundle_named current)
  if checking; then
    check_bundle "$current"
    return
  fi
  if [ -z "$source" ] && [ -n "$current" ]; then
    source=$ROOT$BUNDLES/$current
    if ! intact "$current"; then
      die 4 "the bundle in use, $current, was altered or is damaged (see above)" "provision.sh --yes --bundle DIR_OR_ARCHIVE   or  edge-reclass-bundle rollback"
    fi
    if is_verified "$current" && engines_in_place "$source"; then
      step same bundle "$current"
      return
    fi
    local rebuild=()
    if [ "$DEVICE" = tensorrt ] && ! same_machine "$current"; then
      say "JetPack, TensorRT or the limits changed since bundle $current was verified: engines are built again, none is reused"
      rebuild=(--rebuild)
    fi
    found=$(inspect_bundle "$source")
    prepare_bundle "$source" "${found##* }" "${rebuild[@]}" || die 4 "bundle $current was not built, or does not agree with its reference vectors on this device any more (see above)" \
      "edge-reclass build $source --engines $ENGINES --rebuild   and  edge-reclass verify $source --device $DEVICE --engines $ENGINES"
    mark_verified "$current"
    step 'done' bundle "$current built and verified again for this machine"
    return
  fi
  [ -n "$source" ] || source=$(starter_bundle)
  install_bundle "$source"
  if [ "$BUNDLE_ID" = "$current" ]; then
    step same bundle "$current"
    return
  fi
  switch_bundle "$BUNDLE_ID"
  step 'done' bundle "$BUNDLE_ID, verified on $DEVICE${current:+; was $current (edge-reclass-bundle rollback)}"
}

check_bundle() {
  local current=$1
  if [ -z "$current" ]; then
    step todo bundle "install ${BUNDLE:-the starter bundle}, build its engines and verify them"
  elif [ -n "$BUNDLE" ] && [ -n "$(installed_key)" ] && [ -d "$BUNDLE" ] && [ "$(inspect_bundle "$BUNDLE" 2> /dev/null | cut -d ' ' -f 1)" = "$current" ] && is_verified "$current" && intact "$current" && engines_in_place "$ROOT$BUNDLES/$current"; then
    step same bundle "$current"
  elif [ -n "$BUNDLE" ]; then
    step todo bundle "look at $BUNDLE; verify it and switch to it, if it is not $current"
  elif ! is_verified "$current"; then
    step todo bundle "build and verify $current again: program, JetPack or TensorRT changed"
  elif ! intact "$current"; then
    step todo bundle "replace $current, which was altered or is damaged (see above): --bundle DIR_OR_ARCHIVE, or edge-reclass-bundle rollback"
  elif ! engines_in_place "$ROOT$BUNDLES/$current"; then
    step todo bundle "build engines of $current, which are missing or damaged, and verify it again"
  else
    step same bundle "$current"
  fi
}
