"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from edge_reclass.host.files import read_text


def usable_cpus() -> int:
    """Number of CPUs that this process can keep busy (at least 1): a container's, taskset's or quota's limit counts."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    quota = quota_cpus(Path("/"))
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def quota_cpus(root: Path) -> float | None:
    """CPU time per time that this control group may use, None without a limit; ``root`` is where /sys lies.

    cgroup 2: ``cpu.max`` is ``quota period`` in µs; cgroup 1 keeps them in two files, the quota -1 for none.
    """
    group = root / "sys/fs/cgroup"
    text = read_text(group / "cpu.max")
    if text is None:
        text = f"{read_text(group / 'cpu/cpu.cfs_quota_us')} {read_text(group / 'cpu/cpu.cfs_period_us')}"
    match = re.fullmatch(r"(\d+) (\d+)", text)
    return int(match[1]) / int(match[2]) if match and int(match[1]) and int(match[2]) else None
