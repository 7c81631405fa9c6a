# shellcheck shell=bash
# The device profile: PROFILE, and PROFILE_DEVICE, _MAX_BATCH, _BATCH, _JOBS, _MEMORY_MAX, _POWER_MODE, _ESTIMATES.

# profile_settings NAME|-: KEY=value lines, from the first Python that has PyYAML: the installed program's, else the
# system's. 6: neither has it yet.
profile_settings() {
  local python code=6
  for python in "$ROOT$PREFIX/venv/bin/python" python3; do
    command -v "$python" > /dev/null || continue
    code=0
    PYTHONNOUSERSITE=1 "$python" "$HERE/bin/device_profile.py" shell "$1" "$MODEL" "$MEMORY_GIB" || code=$?
    [ "$code" = 6 ] || return "$code"
  done
  return "$code"
}

# load_profile: --device-profile, else the one that was given before, else the one that suits the machine. PROFILE is
# empty afterwards where nothing can read YAML yet.
load_profile() {
  local settings line wanted code=0
  PROFILE=
  wanted=${DEVICE_PROFILE:-$(setting "$SETTINGS" DEVICE_PROFILE)}
  if [ -z "$wanted" ]; then
    wanted=-
    [ "$DEVICE" != cpu ] || wanted=cpu
  fi
  settings=$(profile_settings "$wanted") || code=$?
  case $code in
    0) ;;
    1) die 5 "no device profile suits this machine (see above)" "provision.sh --device-profile NAME …   with one of $(cd "$HERE/devices" && printf '%s ' *.yaml)" ;;
    6) return 0 ;; # PROFILE stays empty
    *) die 2 "--device-profile $wanted cannot be used (see above)" "ls $HERE/devices" ;;
  esac
  while IFS= read -r line; do
    # Only names that are known, and values that the loader has checked; nothing is evaluated.
    case $line in
      PROFILE=* | PROFILE_DEVICE=* | PROFILE_MAX_BATCH=* | PROFILE_BATCH=* | PROFILE_JOBS=* | PROFILE_WORKSPACE_MIB=* | \
        PROFILE_MEMORY_MAX=* | PROFILE_POWER_MODE=* | PROFILE_ESTIMATES=*) printf -v "${line%%=*}" '%s' "${line#*=}" ;;
      *) die 1 "device_profile.py gave an unknown line: $line" "use the device_profile.py that belongs to this provision.sh" ;;
    esac
  done <<< "$settings"
  [ "$PROFILE_DEVICE" = "$DEVICE" ] || die 2 "profile $PROFILE is for device $PROFILE_DEVICE, but this machine runs on $DEVICE" "provision.sh --device-profile NAME …   with another one"
}

show_profile() {
  if [ -z "$PROFILE" ]; then
    say "profile: chosen after the installation (no Python with PyYAML yet)"
    return
  fi
  say "profile: $PROFILE: engines up to batch $PROFILE_MAX_BATCH, $PROFILE_JOBS jobs, batch $PROFILE_BATCH, memory $PROFILE_MEMORY_MAX; $PROFILE_ESTIMATES of 6 settings are estimates, not measured"
}
