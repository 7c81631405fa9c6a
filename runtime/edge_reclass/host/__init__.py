"""What the core asks of the machine."""

from __future__ import annotations

from edge_reclass.host.cpus import quota_cpus, usable_cpus
from edge_reclass.host.files import read_text
from edge_reclass.host.gpu import Gpu, has_nvidia_gpu, l4t_release, probe_gpu

__all__ = ["Gpu", "has_nvidia_gpu", "l4t_release", "probe_gpu", "quota_cpus", "read_text", "usable_cpus"]
