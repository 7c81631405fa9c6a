"""Record what a command writes, and rebuild the files as a power cut would have left them at any moment.

``record`` runs a command under strace, with everything that it writes below a folder. ``Recording.cuts`` replays that:
for each moment it gives the files of three disks: one that lost everything that was not brought to it by fsync, one
that lost nothing, and one that kept some pages of what was not synced, and lost others (the order is the disk's).

A name survives where its folder was synced after it was made, as POSIX has it. System calls that write and that this
module does not know are an error, so a replay leaves nothing out.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096

Content = tuple[bytes, "int | None"]
"""What a file holds, and its time in ns where that is known."""

_WRITES = "write,pwrite64,copy_file_range,ftruncate,utimensat"
_NAMES = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
_POSITIONS = "openat,read,lseek"
_UNKNOWN = "open,creat,writev,pwritev,pwritev2,sendfile,splice,fallocate,truncate,sync,syncfs,sync_file_range,symlinkat"
_ASSERTED = "mmap,dup,dup2,dup3,ioctl"
_CALLS = f"{_WRITES},{_NAMES},{_POSITIONS},{_UNKNOWN},{_ASSERTED},fsync,fdatasync"
_FICLONE = "FICLONE"

_LINE = re.compile(r"^\d+ +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|0x[0-9a-f]+|\?)(?P<rest>.*)$")
_OPEN_FD = re.compile(r"^(\d+)<(.*)>(\(deleted\))?$", re.DOTALL)


def unavailable() -> str | None:
    """Why nothing can be recorded here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False)
    return "strace may trace nothing here" if tried.returncode else None


@dataclass(eq=False)
class _File:
    """What a file holds, and what of that is on the disk."""

    live: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    time: int | None = None
    """The time of its last change, if it was set since it was last written."""
    synced_time: int | None = None
    dirty: set[int] = field(default_factory=set)
    """Pages that were written since, or cut off."""

    def write(self, offset: int, data: bytes) -> None:
        self.time = None
        if offset > len(self.live):
            self.live.extend(bytes(offset - len(self.live)))
        self.live[offset : offset + len(data)] = data
        self.dirty.update(range(offset // PAGE, (offset + len(data) + PAGE - 1) // PAGE))

    def truncate(self, size: int) -> None:
        old, self.time = len(self.live), None
        if size < old:
            del self.live[size:]
        else:
            self.live.extend(bytes(size - old))
        self.dirty.update(range(min(size, old) // PAGE, (max(size, old) + PAGE - 1) // PAGE))

    def sync(self) -> None:
        self.synced, self.synced_time = bytes(self.live), self.time
        self.dirty.clear()

    def torn(self, chance: random.Random) -> Content:
        """The synced content with some of the dirty pages as they are now; the size is the old or the new one."""
        kept = bytearray(self.synced)
        if self.dirty and chance.random() < 0.5:
            size = len(self.live)
            kept = kept[:size] + bytes(max(0, size - len(kept)))
        for page in self.dirty:
            if chance.random() < 0.5:
                part = self.live[page * PAGE : (page + 1) * PAGE]
                kept[page * PAGE : page * PAGE + len(part)] = part[: max(0, len(kept) - page * PAGE)]
        return bytes(kept), self.time if bytes(kept) == self.live else self.synced_time


@dataclass
class _NameChange:
    """Names that change at once: a file made, renamed or removed."""

    names: dict[str, _File | None]

    @property
    def folders(self) -> set[str]:
        return {str(Path(name).parent) for name in self.names}


@dataclass(frozen=True)
class Cut:
    """The power went after ``done`` of the recorded calls, the last of them of the command with the number ``command``.

    ``files`` are by path; ``disk`` says what it lost.
    """

    command: int
    done: int
    after: str
    disk: str
    files: dict[str, Content]

    def restore(self, root: Path) -> None:
        """Make ``root`` hold these files, and no others."""
        for path in sorted(root.rglob("*"), reverse=True):
            if path.is_file() or path.is_symlink():
                path.unlink()
        for name, (content, time) in self.files.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if time is not None:
                os.utime(path, ns=(time, time))


class Recording:
    """The calls of one or more commands, and the files below ``root`` as they were before."""

    def __init__(self, root: Path, before: dict[str, Content], lines: list[tuple[int, str]]) -> None:
        self.root = str(root)
        self._before = before
        self._lines = lines

    def cuts(self, seed: int = 0) -> Iterator[Cut]:
        """Each moment at which a call changed something: three disks of it."""
        replay = _Replay(self.root, self._before)
        chance = random.Random(seed)
        done = 0
        for command, line in self._lines:
            call = replay.apply(line)
            if call is None:
                continue
            done += 1
            yield Cut(command, done, call, "lost", replay.lost())
            yield Cut(command, done, call, "kept", replay.kept())
            yield Cut(command, done, call, "torn", replay.torn(chance))


def record(commands: Sequence[Sequence[str]], root: Path, log: Path, environ: dict[str, str]) -> Recording:
    """Run commands one after the other; all have to end with exit code 0."""
    before = {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    lines: list[tuple[int, str]] = []
    for number, command in enumerate(commands):
        # -y: the path of each open file; -xx: every string in hexadecimal, paths too, so that nothing is ambiguous.
        strace = ["strace", "-f", "-y", "-xx", "-s", str(1 << 26), "--seccomp-bpf", "-e", f"trace={_CALLS}"]
        done = subprocess.run(
            [*strace, "-e", "signal=none", "-o", str(log), *command],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        needle = _hexadecimal(str(root))
        lines += [(number, line) for line in _whole(log.read_text().splitlines()) if needle in line]
    return Recording(root, before, lines)


def _hexadecimal(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))


def _plain(text: str) -> bytes:
    """A string that strace printed."""
    assert "..." not in text, "strace cut a string short"
    return bytes(int(code, 16) for code in text.strip('"').split("\\x") if code)


def _whole(lines: Sequence[str]) -> Iterator[str]:
    """Lines of calls that another thread's call interrupted are put together, at the place where the call ended."""
    begun: dict[str, str] = {}
    for line in lines:
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line[: -len("<unfinished ...>")].rstrip()
        elif match := re.match(r"^\d+ +<\.\.\. \w+ resumed>(.*)$", line):
            yield begun.pop(pid) + match[1]
        else:
            yield line


class _Replay:
    def __init__(self, root: str, before: dict[str, Content]) -> None:
        self.root = root
        self.names: dict[str, _File] = {}
        self.on_disk: dict[str, _File] = {}
        self.pending: list[_NameChange] = []
        self.positions: dict[int, int] = {}
        """Of each descriptor; one process at a time works on the files, whose threads share them."""
        for name, (content, time) in before.items():
            file = _File(bytearray(content), content, time, time)
            self.names[name] = self.on_disk[name] = file
        self.removed: dict[str, _File] = {}

    def lost(self) -> dict[str, Content]:
        return self._image(self.on_disk, lambda file: (file.synced, file.synced_time))

    def kept(self) -> dict[str, Content]:
        return self._image(self.names, lambda file: (bytes(file.live), file.time))

    def torn(self, chance: random.Random) -> dict[str, Content]:
        """File systems keep the order of names: some of the first changes of names are kept, the others lost."""
        names = dict(self.on_disk)
        for change in self.pending[: chance.randint(0, len(self.pending))]:
            _change(names, change)
        return self._image(names, lambda file: file.torn(chance))

    def _image(self, names, content) -> dict[str, Content]:  # type: ignore[no-untyped-def]
        # SQLite makes its shared memory anew.
        return {name: content(file) for name, file in names.items() if not name.endswith("-shm")}

    def apply(self, line: str) -> str | None:
        """Replay a call; its name and file if it changed something."""
        match = _LINE.match(line)
        if match is None:
            return None
        call, arguments, result = match["call"], match["arguments"].split(", "), match["result"]
        if result.startswith("-") or result == "?":
            return None
        handler = getattr(self, f"_{call}", None)
        if handler is not None:
            changed: str | None = handler(arguments, result, match["rest"])
            return None if changed is None else f"{call} {os.path.relpath(changed, self.root)}"
        if call in _NAMES.split(","):
            return self._name_call(call, arguments)
        inside = [self._path(one) for one in arguments if "<" in one and self._path(one) is not None]
        if call in _UNKNOWN.split(",") and inside:
            raise AssertionError(f"a call that this replay does not know: {line[:300]}")
        if call == "mmap" and inside and "MAP_SHARED" in line and "PROT_WRITE" in line:
            assert inside[0].endswith("-shm"), line[:300]
        if call == "ioctl" and inside:
            assert _FICLONE not in line, line[:300]
        if call.startswith("dup") and inside:
            raise AssertionError(f"a descriptor was copied, its position is not followed: {line[:300]}")
        return None

    # Files

    def _openat(self, arguments: list[str], result: str, rest: str) -> str | None:
        path = self._path(result + rest.strip())
        if path is None:
            return None
        flags = arguments[2] if len(arguments) > 2 else ""
        self.positions[int(result)] = 0
        assert "O_APPEND" not in flags, "appending is not followed"
        if Path(path).is_dir() or "O_DIRECTORY" in flags or "O_PATH" in flags:
            return None
        if path not in self.names:
            if "O_CREAT" not in flags:
                return None  # a folder that is gone by now
            self._rename_all(_NameChange({path: _File()}))
            return path
        if "O_TRUNC" in flags:
            self.names[path].truncate(0)
            return path
        return None

    def _write(self, arguments: list[str], result: str, rest: str) -> str | None:
        file, path, fd = self._opened(arguments[0])
        if file is None:
            return None
        at = self.positions[fd]
        file.write(at, _plain(arguments[1])[: int(result)])
        self.positions[fd] = at + int(result)
        return path

    def _pwrite64(self, arguments: list[str], result: str, rest: str) -> str | None:
        file, path, _ = self._opened(arguments[0])
        if file is None:
            return None
        file.write(int(arguments[3]), _plain(arguments[1])[: int(result)])
        return path

    def _copy_file_range(self, arguments: list[str], result: str, rest: str) -> str | None:
        source, _, _ = self._opened(arguments[0])
        file, path, fd = self._opened(arguments[2])
        if file is None:
            return None
        assert source is not None, "copied from outside of the recorded folder"
        assert arguments[3] == "NULL", arguments
        assert arguments[1].startswith("["), arguments
        at, offset = self.positions[fd], int(re.match(r"\[(\d+)", arguments[1])[1])  # type: ignore[index]
        file.write(at, bytes(source.live[offset : offset + int(result)]))
        self.positions[fd] = at + int(result)
        return path

    def _ftruncate(self, arguments: list[str], result: str, rest: str) -> str | None:
        file, path, _ = self._opened(arguments[0])
        if file is None:
            return None
        file.truncate(int(arguments[1]))
        return path

    def _utimensat(self, arguments: list[str], result: str, rest: str) -> str | None:
        file, path, _ = self._opened(arguments[0])
        if file is None:
            return None
        _, modified = re.findall(r"tv_sec=(\d+), tv_nsec=(\d+)", ", ".join(arguments))
        file.time = int(modified[0]) * 10**9 + int(modified[1])
        return path

    def _read(self, arguments: list[str], result: str, rest: str) -> None:
        _, path, fd = self._opened(arguments[0])
        if path is not None:
            self.positions[fd] += int(result)

    def _lseek(self, arguments: list[str], result: str, rest: str) -> None:
        _, path, fd = self._opened(arguments[0])
        if path is not None:
            self.positions[fd] = int(result)

    def _fsync(self, arguments: list[str], result: str, rest: str) -> str | None:
        file, path, _ = self._opened(arguments[0])
        if file is not None:
            file.sync()
        elif path is not None:
            self._sync_folder(path)
        return path

    _fdatasync = _fsync

    # Names

    def _name_call(self, call: str, arguments: list[str]) -> str | None:
        paths = self._named(arguments)
        if not any(self._inside(path) for path in paths):
            return None
        if call.startswith("mkdir") or call == "rmdir" or "AT_REMOVEDIR" in arguments:
            return None  # empty folders tell nothing of files
        if call.startswith("unlink"):
            change = _NameChange({paths[0]: None})
        elif call.startswith("link"):
            change = _NameChange({paths[1]: self.names[paths[0]]})
        else:
            assert "RENAME_EXCHANGE" not in arguments, arguments
            change = _NameChange({paths[0]: None, paths[1]: self.names[paths[0]]})
        self._rename_all(change)
        return paths[-1]

    def _rename_all(self, change: _NameChange) -> None:
        for name, file in change.names.items():
            if file is None and name in self.names:
                self.removed[name] = self.names[name]
        _change(self.names, change)
        self.pending.append(change)

    def _sync_folder(self, folder: str) -> None:
        left = []
        for change in self.pending:
            if folder in change.folders:
                _change(self.on_disk, change)
            else:
                left.append(change)
        self.pending = left

    # Reading strace

    def _inside(self, path: str) -> bool:
        return path.startswith(self.root + "/") or path == self.root

    def _path(self, argument: str) -> str | None:
        """The path of an open file, if it is below the root."""
        match = _OPEN_FD.match(argument)
        if match is None or "\\x" not in match[2]:
            return None
        path = os.fsdecode(_plain(match[2]))
        return path if self._inside(path) else None

    def _opened(self, argument: str) -> tuple[_File | None, str | None, int]:
        path = self._path(argument)
        fd = int(argument.split("<", 1)[0])
        if path is None:
            return None, None, fd
        if argument.endswith("(deleted)"):
            path = path.removesuffix(" (deleted)")
            return self.removed.get(path), path, fd
        return self.names.get(path), path, fd

    def _named(self, arguments: list[str]) -> list[str]:
        """The paths that a call names, each with the folder that it is relative to."""
        found, base = [], ""
        for argument in arguments:
            if argument.startswith('"'):
                found.append(os.path.normpath(Path(base) / os.fsdecode(_plain(argument))))
            elif "<" in argument:
                base = os.fsdecode(_plain(argument[argument.index("<") + 1 : argument.rindex(">")]))
        return found


def _change(names: dict[str, _File], change: _NameChange) -> None:
    for name, file in change.names.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file
