"""What this machine's kernel enforces of the service's sandbox: asked of the kernel, and of the service where it runs.

A unit may ask for more than the kernel of a board can do; systemd then says so once in its journal, and goes on.
"""

from __future__ import annotations

import ctypes
import gzip
import os
import platform
import re
from pathlib import Path

from edge_reclass.host import read_text
from edge_reclass_doctor.report import Enforced

_BPF_PROG_QUERY = 16
_BPF_CALL = {"x86_64": 321, "aarch64": 280}
_EFFECTIVE = 1
_EGRESS, _DEVICE = 1, 6
"""Kinds of programs that are attached to a cgroup (enum bpf_attach_type)."""


class _Query(ctypes.Structure):
    """The part of union bpf_attr that asks which programs a cgroup has."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
        ("padding", ctypes.c_uint32 * 8),
    )


def enforced(root: Path, pid: int | None = None, cgroup: str = "") -> tuple[Enforced, ...]:
    """What holds of network, system calls, rights, devices and memory.

    Args:
        root: where ``/proc``, ``/sys`` and ``/boot`` are looked for.
        pid: of the running service; None where it does not run.
        cgroup: the service's control group, as systemd names it.
    """
    config = kernel_config(root)
    status = read_text(root / f"proc/{pid}/status") or "" if pid else ""
    folder = root / "sys/fs/cgroup" / cgroup.lstrip("/")
    return (
        _network(root, pid),
        _seccomp(root, status),
        _rights(status),
        _bpf("devices", "DeviceAllow", _DEVICE, folder if pid else None, config),
        _bpf("addresses", "IPAddressDeny", _EGRESS, folder if pid else None, config),
        _memory(root),
    )


def kernel_config(root: Path) -> dict[str, str] | None:
    """The kernel's configuration; None where it cannot be read."""
    release = read_text(root / "proc/sys/kernel/osrelease") or platform.release()
    text: str | None
    try:
        text = gzip.decompress((root / "proc/config.gz").read_bytes()).decode("ascii", "replace")
    except (OSError, EOFError, gzip.BadGzipFile):
        text = read_text(root / f"boot/config-{release}")
    if text is None:
        return None
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def _network(root: Path, pid: int | None) -> Enforced:
    if pid:
        try:
            own = (root / f"proc/{pid}/ns/net").readlink() != (root / "proc/1/ns/net").readlink()
        except OSError:
            own = None
        if own is not None:
            said = "the service has a network of its own, with nothing in it" if own else "the service sees the network"
            return Enforced("network", own, said)
    there = (root / "proc/self/ns/net").exists() or (root / "proc/self/ns/net").is_symlink()
    said = "the kernel can separate networks" if there else "the kernel has no network namespaces"
    return Enforced("network", there, said)


def _seccomp(root: Path, status: str) -> Enforced:
    if found := re.search(r"^Seccomp:\s*(\d)", status, re.MULTILINE):
        holds = found[1] == "2"
        return Enforced("system calls", holds, "filtered in the running service" if holds else "not filtered")
    actions = read_text(root / "proc/sys/kernel/seccomp/actions_avail")
    if actions is None:
        return Enforced("system calls", False, "the kernel has no seccomp filters")
    return Enforced("system calls", True, "the kernel can filter them")


def _rights(status: str) -> Enforced:
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    more = re.search(r"^NoNewPrivs:\s*(\d)", status, re.MULTILINE)
    if found is None or more is None:
        return Enforced("rights", None, "seen only while the service runs")
    holds = int(found[1], 16) == 0 and more[1] == "1"
    return Enforced("rights", holds, "no capabilities, and no way to any" if holds else "the service could get rights")


def _bpf(name: str, setting: str, kind: int, folder: Path | None, config: dict[str, str] | None) -> Enforced:
    """Devices and addresses are closed by BPF programs on the service's control group (cgroup version 2)."""
    count = None if folder is None else _programs(folder, kind)
    if count is not None:
        holds = count > 0
        said = "closed for the running service" if holds else f"{setting} has no effect: no program is attached"
        return Enforced(name, holds, said)
    if config is None:
        return Enforced(name, None, "the kernel shows no configuration; sudo sees more while the service runs")
    if config.get("CONFIG_CGROUP_BPF") != "y":
        return Enforced(name, False, f"{setting} has no effect: the kernel was made without CONFIG_CGROUP_BPF")
    return Enforced(name, True, "the kernel can close them; sudo sees more while the service runs")


def _programs(folder: Path, kind: int) -> int | None:
    """How many BPF programs of a kind hold for a cgroup; None where that cannot be asked: it takes root."""
    number = _BPF_CALL.get(platform.machine())
    if number is None or os.geteuid() != 0:
        return None
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        query = _Query(target_fd=fd, attach_type=kind, query_flags=_EFFECTIVE)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.syscall(number, _BPF_PROG_QUERY, ctypes.byref(query), ctypes.sizeof(query))
        return None if failed else int(query.prog_cnt)
    finally:
        os.close(fd)


def _memory(root: Path) -> Enforced:
    unified = read_text(root / "sys/fs/cgroup/cgroup.controllers")
    there = "memory" in unified.split() if unified is not None else (root / "sys/fs/cgroup/memory").is_dir()
    said = "limited" if there else "MemoryMax has no effect: the kernel gives systemd no control of memory"
    return Enforced("memory", there, said)
