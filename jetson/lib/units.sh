# shellcheck shell=bash
# systemd units with every @NAME@ replaced.

UNITS=/etc/systemd/system

# Device nodes of GPUs that TensorRT and CUDA open; patterns, since numbers and PCI addresses differ. Sources and what is
# left out (video, camera, DLA, display): docs/jetson.md.
GPU_NODES=(
  /dev/nvmap /dev/nvsciipc /dev/host1x-fence /dev/nvhost-ctrl /dev/nvhost-'*gpu' /dev/nvgpu/igpu'*/*'
  /dev/nvidia'[0-9]*' /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia-uvm-tools /dev/nvidia-caps/'*' /dev/dri/renderD'*'
)

gpu_nodes() {
  local pattern node
  for pattern in "${GPU_NODES[@]}"; do
    for node in "$ROOT"/${pattern#/}; do # shellcheck disable=SC2231 # the pattern is meant to be expanded
      [ ! -e "$node" ] || printf '%s\n' "${node#"$ROOT"}"
    done
  done
}

# DeviceAllow takes paths without blanks; : and . in a PCI address are plain.
device_lines() { gpu_nodes | sed 's/.*/DeviceAllow=& rw/'; }

# The groups that own those nodes (video, render); only those that exist, because systemd fails on others. root is none.
gpu_groups() {
  local nodes
  mapfile -t nodes < <(gpu_nodes)
  [ "${#nodes[@]}" != 0 ] || return 0
  stat -c %G "${nodes[@]/#/"$ROOT"}" | grep -vxE 'root|UNKNOWN' | sort -u || true
}

group_lines() {
  local groups
  groups=$(gpu_groups | tr '\n' ' ')
  [ -z "$groups" ] || printf 'SupplementaryGroups=%s\n' "${groups% }"
}

device_arguments() {
  case $DEVICE in
    tensorrt) printf -- '--device tensorrt --engines %s --jobs %s --batch %s' "$ENGINES" "$JOBS" "$BATCH" ;;
    *) printf -- '--device %s --jobs %s' "$DEVICE" "$JOBS" ;;
  esac
}

# render FILE: replaces every @NAME@; one that is left is an error of the unit, not of the user.
render() {
  local text name
  text=$(< "$1")
  local -A values=(
    [SHARE]=$PREFIX/share/jetson [VENV]=$PREFIX/venv [BUNDLES]=$BUNDLES [ENGINES]=$ENGINES [STATE]=$STATE [ETC]=$ETC
    [USER]=$SERVICE_USER [MUSIC]=$MUSIC [RESULTS]=$RESULTS [CALENDAR]=$CALENDAR [MEMORY_MAX]=$MEMORY_MAX
  )
  case $text in
    *@DEVICE_NODES@*) values+=([DEVICE_NODES]=$(device_lines) [DEVICE_GROUPS]=$(group_lines)) ;;
    *@DEVICE_ARGUMENTS@*) values+=([DEVICE_ARGUMENTS]=$(device_arguments)) ;;
  esac
  for name in "${!values[@]}"; do text=${text//"@$name@"/"${values[$name]}"}; done
  if [[ $text =~ (^|$'\n')[^#$'\n']*@[A-Z_]+@ ]]; then die 1 "$1 has a placeholder that nothing replaces"; fi
  printf '%s\n' "$text"
}

# Which units this machine gets: "SOURCE INSTALLED-AS".
unit_files() {
  echo "edge-reclass.service edge-reclass.service"
  echo "edge-reclass.timer edge-reclass.timer"
  [ "$DEVICE" = cpu ] || echo "gpu.conf edge-reclass.service.d/10-gpu.conf"
}

# What a run that was broken off did not tell systemd any more: units that it has not read, a timer that does not run.
systemd_is_behind() {
  [ -z "$ROOT" ] || return 1
  case $(systemctl show --property=NeedDaemonReload --value edge-reclass.service edge-reclass.timer) in *yes*) return 0 ;; esac
  ! systemctl --quiet is-active edge-reclass.timer
}

step_units() {
  local changed=() source target known text
  command -v systemctl > /dev/null || die 1 "systemctl was not found: edge-reclass runs as a systemd service" "provision.sh --no-units …   leaves them out"
  known=$(unit_files)
  while read -r source target; do
    text=$(render "$HERE/units/$source")
    if checking; then
      [ "$text" = "$(cat "$ROOT$UNITS/$target" 2> /dev/null)" ] || changed+=("$target")
    else
      mkdir -p "$(dirname "$ROOT$UNITS/$target")"
      if write_file "$UNITS/$target" 0644 "$text"; then changed+=("$target"); fi
    fi
  done <<< "$known"
  # A drop-in of another machine, as on a card that moved to a Raspberry Pi.
  target=edge-reclass.service.d/10-gpu.conf
  if [ -f "$ROOT$UNITS/$target" ] && ! grep -qF " $target" <<< "$known"; then
    checking || rm -f "$ROOT$UNITS/$target"
    changed+=("$target (removed)")
  fi
  if ! unit_enabled edge-reclass.timer; then changed+=("timer enabled"); fi
  if [ "${#changed[@]}" = 0 ] && systemd_is_behind; then changed+=("systemd reloaded"); fi
  if [ "${#changed[@]}" = 0 ]; then
    step same units "edge-reclass.timer: $CALENDAR"
    return
  fi
  if checking; then
    step todo units "write or enable ${changed[*]}"
    return
  fi
  system daemon-reload
  system enable edge-reclass.timer
  [ -n "$ROOT" ] || systemctl restart edge-reclass.timer || die 1 "edge-reclass.timer does not start" "systemctl status edge-reclass.timer"
  step 'done' units "${changed[*]}"
}

# systemctl, on this machine or on the folder of a test or an image; quiet where it has nothing to say.
system() {
  if [ -z "$ROOT" ]; then
    systemctl --quiet "$@" || die 1 "systemctl $* failed" "systemctl $*"
  elif [ "$1" != daemon-reload ]; then
    systemctl --quiet --root="$ROOT" "$@" || die 1 "systemctl --root=$ROOT $* failed" "systemctl --root=$ROOT $*"
  fi
}

unit_enabled() { systemctl ${ROOT:+--root="$ROOT"} is-enabled "$1" > /dev/null 2>&1; }
