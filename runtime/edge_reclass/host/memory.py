"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from edge_reclass.host.files import read_text


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory of this machine, or fewer if the control group has a limit; ``root`` is where /sys lies."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = root / "sys/fs/cgroup"
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        text = read_text(group / file)
        if text is not None and text.isdecimal():
            memory = min(memory, int(text))
    return memory
