# shellcheck shell=bash
# What machine this is: reads only. Sets TARGET, DEVICE, JETPACK, L4T, PYTHON, TENSORRT, MODEL, MEMORY_GIB, MACHINE,
# and with set_limits BATCH, JOBS, WORKSPACE_MIB, MEMORY_MAX.

KNOWN="known: JetPack 6.1 (L4T 36.4.0), 6.2 (36.4.3), 6.2.1 (36.4.4, 36.4.7), 6.2.2 (36.5.0), 7.2 (39.2.x), and Debian 12 or Raspberry Pi OS 12 (64 bit) without a GPU"

# "36.4.3" from nv_tegra_release, else from the installed package nvidia-l4t-core; empty where this is no Jetson.
read_l4t() {
  local line
  if [ -f "$ROOT/etc/nv_tegra_release" ]; then
    line=$(head -n 1 "$ROOT/etc/nv_tegra_release")
    if [[ $line =~ R([0-9]+).*REVISION:\ *([0-9]+(\.[0-9]+)*) ]]; then
      printf '%s.%s' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
      return
    fi
    die 5 "$ROOT/etc/nv_tegra_release: expected '# R36 (release), REVISION: 4.3, …', got '$line'" "restore the file: sudo apt-get install --reinstall nvidia-l4t-core"
  fi
  line=$(package_version nvidia-l4t-core)
  printf '%s' "${line%%-*}"
}

# The version of an installed Debian package; empty where it is not installed.
package_version() {
  local status=$ROOT/var/lib/dpkg/status
  [ -f "$status" ] || return 0
  awk -v name="$1" '
    /^Package: /  { here = ($2 == name); installed = 0 }
    here && /^Status: .* installed$/ { installed = 1 }
    here && installed && /^Version: / { print $2; exit }
  ' "$status"
}

os_release() { [ ! -f "$ROOT/etc/os-release" ] || sed -n "s/^$1=//p" "$ROOT/etc/os-release" | tr -d '"'; }

# "10.3.0": of JetPack's Python bindings, which bring the library.
tensorrt_version() {
  local version
  version=$(package_version python3-libnvinfer)
  printf '%s' "$version" | grep -oE '^[0-9]+\.[0-9]+\.[0-9]+' || true
}

detect() {
  MACHINE=$(uname -m)
  # shellcheck disable=SC2034  # read by whoever sources this
  MODEL=$(tr -d '\0' 2> /dev/null < "$ROOT/proc/device-tree/model" || true)
  MEMORY_GIB=$(awk '/^MemTotal:/ { printf "%.1f", $2 / 1048576 }' "$ROOT/proc/meminfo" 2> /dev/null || echo 0)
  L4T=$(read_l4t)
  JETPACK=
  TENSORRT=
  if [ -n "$L4T" ]; then
    detect_jetson
  else
    detect_plain
  fi
}

detect_jetson() {
  DEVICE=tensorrt
  case $L4T in
    36.4 | 36.4.0) JETPACK=6.1 ;;
    36.4.3) JETPACK=6.2 ;;
    36.4.*) JETPACK=6.2.1 ;;
    36.5 | 36.5.0) JETPACK=6.2.2 ;;
    39.2 | 39.2.*) JETPACK=7.2 ;;
    38.*)
      die 5 "L4T $L4T (JetPack 7.0 or 7.1) is not supported: its TensorRT 10.13 was never tried; $KNOWN" "flash JetPack 7.2 (https://developer.nvidia.com/embedded/jetpack)" ;;
    36.2* | 36.3*)
      die 5 "L4T $L4T (JetPack 6.0) is not supported: its TensorRT 8.6 cannot take these graphs; $KNOWN" "upgrade to JetPack 6.2: point /etc/apt/sources.list.d/nvidia-l4t-apt-source.list to r36.4, then sudo apt-get dist-upgrade" ;;
    3[0-5].*)
      die 5 "L4T $L4T (JetPack 5 or older) is not supported: Python 3.8 and TensorRT 8 are too old; $KNOWN" "flash JetPack 6.2 (https://developer.nvidia.com/embedded/jetpack)" ;;
    *) die 5 "L4T $L4T is not known to this version of edge-reclass; $KNOWN" "look for a newer edge-reclass, or flash a known JetPack" ;;
  esac
  case $JETPACK in
    6.*) TARGET=jetpack6 PYTHON=3.10 TENSORRT_TESTED=10.3 UBUNTU=22.04 ;;
    7.*) TARGET=jetpack7 PYTHON=3.12 TENSORRT_TESTED=10.16 UBUNTU=24.04 ;;
  esac
  TENSORRT=$(tensorrt_version)
  local ubuntu
  ubuntu=$(os_release VERSION_ID)
  [ "$ubuntu" = "$UBUNTU" ] || die 5 "JetPack $JETPACK (L4T $L4T) comes with Ubuntu $UBUNTU, but /etc/os-release says '$(os_release ID) $ubuntu'; $KNOWN" "flash JetPack again; a userland of another release is not supported"
}

detect_plain() {
  DEVICE=cpu
  local id version
  id=$(os_release ID)
  version=$(os_release VERSION_ID)
  if [ "$id" != debian ] || [ "$version" != 12 ]; then
    die 5 "this is no Jetson, and '${id:-unknown} ${version:-}' is not supported; $KNOWN" "elsewhere, install with pip: see README.md"
  fi
  case $MACHINE in
    aarch64 | x86_64) ;;
    *) die 5 "Debian 12 on $MACHINE is not supported: expected aarch64 or x86_64 (a Raspberry Pi needs the 64-bit system)" "install the 64-bit system" ;;
  esac
  TARGET=debian12 PYTHON=3.11
}

describe_machine() {
  if [ -n "$L4T" ]; then
    say "machine: ${MODEL:-unknown Jetson}; JetPack $JETPACK (L4T $L4T), TensorRT ${TENSORRT:-missing}; $MEMORY_GIB GiB; target $TARGET"
  else
    say "machine: ${MODEL:-$MACHINE}; $(os_release PRETTY_NAME), no Jetson, so no GPU; $MEMORY_GIB GiB; target $TARGET"
  fi
}

# What the machine can bear, reckoned from its memory and cores; measured on none of them.
# shellcheck disable=SC2034  # read by whoever sources this
set_limits() {
  local cores
  # One track of 30 s is 6 windows of 5 s. The largest encoder (MERT-330M, FP16) takes 1.1 GB and 0.2 GB per window: 2.3
  # GB of 8 for one track, and a track more for every 8 GB.
  BATCH=$(awk -v gib="$MEMORY_GIB" 'BEGIN { tracks = int(gib / 8 + 0.5); print 6 * (tracks < 1 ? 1 : tracks > 8 ? 8 : tracks) }')
  # A track at a time on every other core: the rest decode, and feed the GPU.
  cores=$(grep -c '^processor' "$ROOT/proc/cpuinfo" 2> /dev/null || true)
  JOBS=$((${cores:-0} > 3 ? cores / 2 : 1))
  WORKSPACE_MIB=$(awk -v gib="$MEMORY_GIB" 'BEGIN { print gib < 1 ? 256 : int(gib * 128) }') # an eighth, for TensorRT's builder
  # The service's own memory. A Jetson's GPU takes the same memory, and is probably not counted by the control group.
  MEMORY_MAX=75%
  [ "$DEVICE" = cpu ] || MEMORY_MAX=40%
}

# A missing TensorRT ends everything on a Jetson, before anything is written.
require_tensorrt() {
  [ "$DEVICE" = tensorrt ] || return 0
  [ -n "$TENSORRT" ] || die 5 \
    "TensorRT's Python bindings are missing: the package python3-libnvinfer is not installed. A Jetson that was flashed without JetPack's components has no TensorRT; PyPI has none for it either" \
    "sudo apt-get install nvidia-tensorrt python3-libnvinfer   (needs NVIDIA's apt server; without a network, flash with SDK Manager and select the Jetson Runtime Components)"
  case $TENSORRT in
    "$TENSORRT_TESTED".*) ;;
    *) step note tensorrt "TensorRT $TENSORRT instead of $TENSORRT_TESTED, which JetPack $JETPACK comes with: never tried; every engine is verified before it counts" ;;
  esac
}

# The Python of the target, as a command.
find_python() {
  local command
  for command in "python$PYTHON" python3; do
    if [ "$("$command" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)" = "$PYTHON" ]; then
      command -v "$command"
      return
    fi
  done
  die 5 "Python $PYTHON, which target $TARGET comes with, was not found" "sudo apt-get install python$PYTHON"
}
