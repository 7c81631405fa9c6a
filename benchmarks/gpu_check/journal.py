"""What a call has found, one line of JSON per item, on disk at once: a cut loses the item in progress at most.

Kept twice, in the state folder, where the next call goes on, and beside the results, where it comes back alone. Not the
journal of ``bench run``: that is of one run of one bundle, and goes when the record is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from edge_reclass.errors import UsageError
from edge_reclass.host import usable_cpus
from edge_reclass_bench.clocks import Clock, perf_counter
from edge_reclass_bench.record import Measure
from edge_reclass_bench.scenarios.context import Broke

NAME = "gpu_check.jsonl"
SETTLED = frozenset({"ok", "wrong", "not here", "crashed"})
"""What is not tried again; a crash would end every call."""


class Settings(Struct, frozen=True, kw_only=True, tag=True):
    """What was asked for. ``deadline``: seconds since the epoch, after which nothing is begun."""

    state: str
    out: str
    device: str
    tiny: bool
    graphs: str
    batches: list[int]
    seconds: float
    jobs: int
    deadline: float

    @property
    def threads(self) -> int:
        """Of all that computes on the CPU; small networks only wait for each other's threads."""
        return 1 if self.tiny else usable_cpus()

    @property
    def label(self) -> str:
        """What the numbers are; stands over the page."""
        measured = self.device == "cuda" and not self.tiny
        what = "" if measured else ": a test of the script, not a measurement"
        return f"device {self.device}, {'tiny networks' if self.tiny else 'networks of full size'}{what}"


class Check(Struct, frozen=True, kw_only=True):
    """The worst row's figures; ``wrong`` names what is outside the limits."""

    against: str
    batch: int
    rows: int
    cosine: float
    relative: float
    worst_row: str
    wrong: str = ""


class Share(Struct, frozen=True, kw_only=True):
    """One contender at one batch size: milliseconds, and how much of each ceiling (1 is all of it)."""

    contender: str
    clock: Literal["host", "device"]
    milliseconds: float
    host_milliseconds: float
    tflops: float
    ceilings: dict[str, float]


class Begun(Struct, frozen=True, kw_only=True, tag=True):
    """An item is about to be done."""

    stage: str
    name: str


class Item(Struct, frozen=True, kw_only=True, tag=True):
    """One item is done, or was not. ``wrong``: it was measured, and ``reason`` says why it cannot be right.

    ``values`` are single numbers, their unit in the name; ``measures`` hold raw samples.
    """

    stage: str
    name: str
    status: Literal["ok", "wrong", "not here", "failed", "crashed", "left"]
    seconds: float = 0.0
    reason: str = ""
    values: dict[str, float] = msgspec.field(default_factory=dict)
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    checks: list[Check] = msgspec.field(default_factory=list)
    shares: list[Share] = msgspec.field(default_factory=list)
    measures: list[Measure] = msgspec.field(default_factory=list)


class StageTask(Struct, frozen=True, kw_only=True):
    """What a stage's process is told: the settings, the items that are settled, and all numbers so far."""

    stage: str
    settings: Settings
    done: list[str]
    values: dict[str, float]


class NotHere(Exception):
    """What an item needs is not on this machine: a finding, no failure."""


Line = Settings | Begun | Item
Event = Begun | Item | Broke


class Journal:
    """The lines of all calls with one state folder."""

    def __init__(self, state: Path, out: Path) -> None:
        """Raises ``UsageError`` where a folder cannot be written."""
        self._files = [state / NAME, out / NAME]
        self.lines = list(read(self._files[0])) if self._files[0].exists() else []
        try:
            for folder in (state, out):
                folder.mkdir(parents=True, exist_ok=True)
            # Anew, so that the end of a cut line goes, and the results have what earlier calls found.
            for file in self._files:
                file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in self.lines))
        except OSError as error:
            raise UsageError(f"{error.filename}: cannot be written ({error.strerror}); name other folders") from error

    def add(self, line: Line) -> None:
        """Keep one more."""
        self.lines.append(line)
        for file in self._files:
            with file.open("ab") as stream:
                stream.write(msgspec.json.encode(line) + b"\n")

    def task(self, stage: str, settings: Settings) -> StageTask:
        """What the process of ``stage`` needs to go on."""
        items = latest(self.lines)
        done = [item.name for item in items if item.stage == stage and item.status in SETTLED]
        values = {name: value for item in items for name, value in item.values.items()}
        return StageTask(stage=stage, settings=settings, done=done, values=values)


def read(path: Path) -> Iterator[Line]:
    """The lines of a journal; one that was cut off is left out. Raises ``UsageError`` where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a {NAME} of gpu_check") from error
    for number, line in enumerate(content.splitlines(), 1):
        try:
            yield msgspec.json.decode(line, type=Line)
        except msgspec.MsgspecError as error:
            if number < content.count(b"\n") or number == 1:
                raise UsageError(f"{path}: line {number} is none of gpu_check's ({error})") from error
            return


def latest(lines: Sequence[Line]) -> list[Item]:
    """Each item as it was last; one that was begun and never done is ``left``, for the call was cut in it."""
    found: dict[tuple[str, str], Item] = {}
    for line in lines:
        if isinstance(line, Begun):
            cut = Item(stage=line.stage, name=line.name, status="left", reason="the call was cut while it was done")
            found[line.stage, line.name] = cut
        elif isinstance(line, Item):
            found[line.stage, line.name] = line
    return list(found.values())


@dataclass
class Work:
    """A stage at work, in its process: does its items unless they are settled or do not fit the time."""

    task: StageTask
    now: Callable[[], float]
    clock: Clock = perf_counter
    values: dict[str, float] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """What was asked for."""
        return self.task.settings

    def value(self, name: str) -> float | None:
        """A number that this or an earlier stage has found."""
        return self.values.get(name, self.task.values.get(name))

    def do(
        self, name: str, work: Callable[[], Mapping[str, Any]], expect: float = 5.0
    ) -> Generator[Begun | Item, None, None]:
        """Do one item, which should take ``expect`` seconds; ``work`` gives fields of the :class:`Item`.

        What it raises is recorded, and the stage goes on. A ``reason`` without a status means ``wrong``.
        """
        stage = self.task.stage
        if name in self.task.done:
            return
        if self.now() + expect > self.settings.deadline:
            yield Item(
                stage=stage, name=name, status="left", reason=f"it takes about {expect:.0f} s, which were not left"
            )
            return
        yield Begun(stage=stage, name=name)
        began = self.clock()
        fields: Mapping[str, Any]
        try:
            fields = work()
            status = "wrong" if fields.get("reason") else "ok"
        except NotHere as reason:
            fields, status = {"reason": str(reason)}, "not here"
        except Exception as error:  # whatever it is, the other items may do
            fields, status = {"reason": f"{type(error).__name__}: {error}"[:2000]}, "failed"
        self.values.update(fields.get("values", {}))
        yield Item(stage=stage, name=name, seconds=self.clock() - began, **{"status": status, **fields})
