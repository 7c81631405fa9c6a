"""Limits this process as a unit's SystemCallFilter and its relatives would, then becomes another program.

``python confine.py '{"allow": [...], "families": ["AF_UNIX"], "no_write_execute": true}' PROGRAM ARGUMENT…``

systemd does the same with the same library (libseccomp), which is here wherever systemd is. It is run inside of
bubblewrap, which does the namespaces.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
_PROT_WRITE, _PROT_EXEC = 2, 4
_SHM_EXEC = 0o100000


class _Compare(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def confine(allow: list[str], families: list[str], no_write_execute: bool) -> None:
    """Only the named system calls, sockets of the named families, and no memory both written and executed."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM)))
    if not context:
        raise OSError("seccomp_init gives no filter")

    def add(name: str, *conditions: _Compare) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # this kernel's library has no such call
            return
        array = (_Compare * max(1, len(conditions)))(*conditions)
        status = library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, len(conditions), array)
        if status != 0:
            raise OSError(-status, f"no rule can be made for {name}")

    special = {"socket", *(("mmap", "mprotect", "pkey_mprotect", "shmat") if no_write_execute else ())}
    for name in sorted(set(allow) - special):
        add(name)
    for family in families:
        add("socket", _Compare(0, _EQUAL, int(getattr(socket, family)), 0))
    if no_write_execute:
        both = _PROT_WRITE | _PROT_EXEC
        for bits in (0, _PROT_WRITE, _PROT_EXEC):
            add("mmap", _Compare(2, _MASKED_EQUAL, both, bits))
        for name in ("mprotect", "pkey_mprotect"):
            add(name, _Compare(2, _MASKED_EQUAL, _PROT_EXEC, 0))
        add("shmat", _Compare(2, _MASKED_EQUAL, _SHM_EXEC, 0))
    status = library.seccomp_load(context)
    if status != 0:
        raise OSError(-status, "the filter cannot be loaded")


if __name__ == "__main__":
    confine(**json.loads(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
