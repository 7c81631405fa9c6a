"""Memory, swap, and the space on disks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from edge_reclass.host import read_text
from edge_reclass_doctor.machine.reading import read_int
from edge_reclass_doctor.machine.records import Disk, Memory


def probe_memory(root: Path) -> Memory:
    """From /proc/meminfo, and the limit of the control group (version 2, else 1) where there is one."""
    sizes = {
        name: int(kilobytes) * 1024
        for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB$", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    }
    total = sizes.get("MemTotal")
    limit = read_int(root / "sys/fs/cgroup/memory.max")
    if limit is None:
        limit = read_int(root / "sys/fs/cgroup/memory/memory.limit_in_bytes")
    return Memory(
        total_bytes=total,
        available_bytes=sizes.get("MemAvailable"),
        swap_total_bytes=sizes.get("SwapTotal"),
        swap_free_bytes=sizes.get("SwapFree"),
        # Version 1 says "none" by a number larger than any memory.
        limit_bytes=limit if limit is not None and (total is None or limit < total) else None,
    )


def probe_disks(paths: Iterable[Path]) -> tuple[Disk, ...]:
    """Space for this user on the file system of each path; paths where nothing can be asked are left out."""
    found = []
    space: dict[int, os.statvfs_result] = {}  # asked once for each disk: two answers would differ
    for path in dict.fromkeys(paths):
        whole = Path(path).absolute()
        for folder in (whole, *whole.parents):
            try:
                status = space.setdefault(os.stat(folder).st_dev, os.statvfs(folder))  # noqa: PTH116
            except OSError:
                continue
            size = status.f_frsize
            found.append(Disk(str(path), str(folder), status.f_bavail * size, status.f_blocks * size))
            break
    return tuple(found)
