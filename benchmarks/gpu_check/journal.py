"""What a stage has found so far: one JSON file, written anew (atomically) after every item. Standard library only."""

from __future__ import annotations

import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Journal", "NotHere", "load_record", "write_atomically"]

_TRACEBACK_LINES = 12
DONE = ("ok",)


class NotHere(Exception):
    """What an item needs is not on this machine; the message says what. A finding, not a failure."""


def write_atomically(path: Path, text: str) -> None:
    """The file has either its old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_record(path: Path) -> dict[str, Any] | None:
    """A stage's record; None where there is none yet."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


class Journal:
    """The items of one stage, by name, in the order in which they were done.

    An item's ``status``: ``ok`` with its ``result``; ``wrong``, if that has ``faults``; ``not here`` with a reason;
    ``failed`` with the error; ``crashed``, if the process died in it. What is ok is not done again, nor what crashed:
    that could end every call.
    """

    def __init__(
        self, path: Path, stage: str, *, label: str, deadline: float, say: Callable[[str], None] = print
    ) -> None:
        self._path, self._deadline, self._say = path, deadline, say
        before = load_record(path) or {}
        self._record: dict[str, Any] = {
            "format": 1,
            "stage": stage,
            "label": label,
            "status": "running",
            "seconds": before.get("seconds", 0.0),
            "left": [],
            "items": before.get("items", {}),
        }
        self._began = time.monotonic()
        self._earlier = self._record["seconds"]
        for item in self._record["items"].values():
            if item["status"] == "running":
                item.update(status="crashed", error="the process died while it was at this")
        self._write()

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        return self._record["items"]  # type: ignore[no-any-return]

    def result(self, name: str) -> Any:
        """What an item gave; None where it gave nothing yet."""
        item = self.items.get(name, {})
        return item.get("result") if item.get("status") == "ok" else None

    def do(self, name: str, work: Callable[[], Any], *, expect: float = 5.0) -> Any:
        """Do ``work`` unless it was done; gives its result, or None.

        Not begun where fewer than ``expect`` seconds are left. Whatever it raises is recorded, and the stage goes on.
        """
        before = self.items.get(name, {})
        if before.get("status") in DONE:
            self._say(f"  {name}: done before")
            return before.get("result")
        if before.get("status") == "crashed":
            self._say(f"  {name}: crashed before, not tried again (--again does)")
            return None
        if time.time() + expect > self._deadline:
            self._record["left"].append(name)
            self._say(f"  {name}: no time left for it in this call (about {expect:.0f} s)")
            return None
        self.items[name] = {"status": "running"}
        self._write()
        began = time.monotonic()
        try:
            result = work()
            wrong = bool(isinstance(result, dict) and result.get("faults"))
            entry: dict[str, Any] = {"status": "wrong" if wrong else "ok", "result": result}
        except NotHere as reason:
            entry = {"status": "not here", "reason": str(reason)}
        except Exception as error:
            tail = traceback.format_exc().strip().splitlines()[-_TRACEBACK_LINES:]
            entry = {"status": "failed", "error": f"{type(error).__name__}: {error}", "traceback": tail}
        entry["seconds"] = round(time.monotonic() - began, 3)
        self.items[name] = entry
        self._write()
        if entry["status"] == "wrong":
            self._say(f"  {name}: wrong: {'; '.join(entry['result']['faults'])}")
        elif entry["status"] != "ok":
            self._say(f"  {name}: {entry['status']}: {entry.get('reason') or entry.get('error')}")
        return entry.get("result")

    def finish(self) -> str:
        """Settle the stage's status and write it: ok, partial (items are left), failed, or not here."""
        found = [item["status"] for item in self.items.values()]
        if any(status in ("wrong", "failed", "crashed") for status in found):
            status = "failed"
        elif self._record["left"]:
            status = "partial"
        elif found and all(status == "not here" for status in found):
            status = "not here"
        else:
            status = "ok"
        self._record["status"] = status
        self._write()
        return status

    def _write(self) -> None:
        self._record["seconds"] = round(self._earlier + time.monotonic() - self._began, 1)
        write_atomically(self._path, json.dumps(self._record, indent=1))


def mark_crashed(path: Path, stage: str, label: str, error: str, tail: list[str]) -> None:
    """Record that a stage's process died; the item that it was at is the one that is running."""
    record = load_record(path) or {"format": 1, "stage": stage, "label": label, "seconds": 0.0, "left": [], "items": {}}
    record.update(status="failed", error=error, tail=tail)
    for item in record["items"].values():
        if item["status"] == "running":
            item.update(status="crashed", error=error)
    write_atomically(path, json.dumps(record, indent=1))
