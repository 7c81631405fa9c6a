"""What the core asks of the machine."""

from __future__ import annotations

from edge_reclass.host.cpus import quota_cpus, usable_cpus
from edge_reclass.host.files import read_text, replace_whole, write_whole
from edge_reclass.host.filesystem import network_file_system
from edge_reclass.host.gpu import Gpu, has_nvidia_gpu, l4t_release, probe_gpu
from edge_reclass.host.memory import usable_memory

__all__ = [
    "Gpu",
    "has_nvidia_gpu",
    "l4t_release",
    "network_file_system",
    "probe_gpu",
    "quota_cpus",
    "read_text",
    "replace_whole",
    "usable_cpus",
    "usable_memory",
    "write_whole",
]
