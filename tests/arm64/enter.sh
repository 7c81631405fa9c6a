#!/usr/bin/env bash
# enter.sh ROOT QEMU RUN CLIPS PROGRAM [ARGUMENT…]: one arm64 process in ROOT, without a network.
# run.sh starts it through `unshare --net --mount`, so that every mount here ends with the process. The process sees
# RUN at /mnt/run, the only place that it can write to, and CLIPS at /mnt/clips.
set -euo pipefail
root="$1" qemu="$2" run="$3" clips="$4"
shift 4
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# ONNX Runtime 1.23 counts the processors in /sys, and aborts where there is none.
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind "$run" "$root/mnt/run"
mount --bind "$clips" "$root/mnt/clips"
mount -o remount,bind,ro "$root/mnt/clips"
mount --bind "$qemu" "$root/qemu-aarch64-static"
for device in null urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
mount -o remount,bind,ro "$root"
# One thread each: what is compared must not depend on how many cores there are.
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt/run TMPDIR=/mnt/run/tmp LANG=C.UTF-8 \
  OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
  chroot "$root" /qemu-aarch64-static "$@"
