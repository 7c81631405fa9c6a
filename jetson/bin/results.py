#!/usr/bin/env python3
"""Verdicts outlive a disk that is not there: ``results.py keep|merge RESULTS`` around a run, ``forget RESULTS FOLDER``.

``keep`` links RESULTS/verdicts.jsonl to verdicts.before.jsonl before a run. ``merge``, after it, carries over what the
run could not see: the verdict of a track that is missing or unreadable now, or whose folder is gone, empty or closed.
A track that was deleted from a folder that still holds something is dropped. Exit codes: 0 nothing had to be carried
over; 1 something was: the run was no success; 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_LOST = ("missing", "unreadable")
"""Statuses that say nothing of the track itself."""


def keep(results: Path) -> int:
    """Link the results that there are; first finish what a power cut left between a run's end and its ``merge``."""
    merge(results)
    if (results / "verdicts.jsonl").exists():
        os.link(results / "verdicts.jsonl", _before(results))
    return 0


def merge(results: Path) -> int:
    """Carry over verdicts of the run before, say whose, and return 1; 0 where there are none to carry over."""
    before, now = _before(results), results / "verdicts.jsonl"
    if not before.exists():
        return 0
    lost: Counter[str] = Counter()
    if not now.exists():  # a run only ever replaces it
        before.replace(now)
        return 1
    if not before.samefile(now):
        today = {path: status for path, status, _ in _verdicts(now)}
        kept = {
            path: line
            for path, status, line in _verdicts(before)
            if status not in _LOST and (today[path] in _LOST if path in today else _gone(Path(path).parent))
        }
        if kept:
            _write(now, [line for path, _, line in _verdicts(now) if path not in kept] + list(kept.values()))
        lost.update(str(Path(path).parent) for path in kept)
    before.unlink()
    if not lost:
        return 0
    print(f"error: {lost.total()} tracks of the run before could not be read now: {_most(lost)}", file=sys.stderr)
    print("their verdicts stay; is every disk mounted, and may the service read its folders?", file=sys.stderr)
    print(f"what was deleted on purpose: {sys.argv[0]} forget {results} FOLDER", file=sys.stderr)
    return 1


def forget(results: Path, folder: Path) -> int:
    """Drop the verdicts of all tracks below ``folder``."""
    now = results / "verdicts.jsonl"
    verdicts = list(_verdicts(now))
    left = [line for path, _, line in verdicts if folder not in Path(path).parents]
    _write(now, left)
    print(f"{len(verdicts) - len(left)} verdicts were dropped, {len(left)} stay")
    return 0


def _before(results: Path) -> Path:
    return results / "verdicts.before.jsonl"


def _verdicts(file: Path) -> Iterator[tuple[str, str, str]]:
    with file.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            verdict = json.loads(line)
            yield verdict["path"], verdict["status"], line


def _gone(folder: Path) -> bool:
    """Whether a folder is missing, empty or unreadable: it may be a mount point without its disk."""
    try:
        with os.scandir(folder) as entries:
            return not any(entries)
    except OSError:
        return True


def _write(target: Path, lines: list[str]) -> None:
    new = target.with_name(".verdicts.merged")
    with new.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    old = target.stat()
    new.chmod(old.st_mode & 0o7777)
    if os.geteuid() == 0:  # forget is called by root, and the service goes on writing
        os.chown(new, old.st_uid, old.st_gid)
    new.replace(target)


def _most(lost: Counter[str]) -> str:
    shown = [f"{folder!r} ({count})" for folder, count in lost.most_common(3)]
    return ", ".join([*shown, f"{len(lost) - 3} more folders"] if len(lost) > 3 else shown)


def main(arguments: list[str]) -> int:
    """Do as the command line says."""
    if len(arguments) == 2 and arguments[0] in ("keep", "merge"):
        return {"keep": keep, "merge": merge}[arguments[0]](Path(arguments[1]))
    if len(arguments) == 3 and arguments[0] == "forget":
        return forget(Path(arguments[1]), Path(arguments[2]))
    print((__doc__ or "").strip(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
