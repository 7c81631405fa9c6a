"""Records with the tags under which a report names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_bench.record import Measure, Record, load

__all__ = ["Source", "decode_measure", "read", "stage_names", "stage_parts", "tagged"]


@dataclass(frozen=True)
class Source:
    """One record, the file's ``name``, and its ``tag`` (A, B, …), which is empty where there is only one record."""

    name: str
    record: Record
    tag: str = ""


def read(files: Sequence[Path]) -> list[Source]:
    """The records of ``files``. Raises ``UsageError`` where one cannot be read (see ``record.load``)."""
    return tagged([(file.name, load(file)) for file in files])


def tagged(records: Sequence[tuple[str, Record]]) -> list[Source]:
    """Named records with their tags."""
    return [Source(name, record, _tag(i) if len(records) > 1 else "") for i, (name, record) in enumerate(records)]


def _tag(number: int) -> str:
    """A to Z, then AA, AB and so on."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def stage_names(record: Record) -> list[str]:
    """All stages that were measured or are in the policy: the policy's order first."""
    names = [step.after for step in record.subject.policy.steps]
    names += [measure.stage for measure in record.measures if measure.stage is not None]
    return list(dict.fromkeys(names))


def stage_parts(record: Record, stage: str) -> dict[tuple[str, str], Measure]:
    """(part, clock) → warm measure of one stage: each stage alone if that was measured, else within the cascade.

    Empty where the stage was not measured at all.
    """
    for scenario, subject in _places(stage):
        found: dict[tuple[str, str], Measure] = {
            (measure.part, measure.clock): measure
            for measure in record.find(scenario=scenario, subject=subject, stage=stage)
            if measure.unit == "ms"
        }
        if found:
            return found
    return {}


def decode_measure(record: Record) -> Measure | None:
    """How long one track takes to decode, warm; None where it was not measured."""
    found = [measure for measure in record.find(part="decode", clock="host") if measure.unit == "ms"]
    order = {"stage": 0, "single-stream": 1}
    return min(found, key=lambda measure: order.get(measure.scenario, 2), default=None)


def _places(stage: str) -> Iterator[tuple[str, str]]:
    yield "stage", f"single:{stage}"
    yield "stage", "ensemble"
    yield "stage", "cascade"
    yield "single-stream", f"single:{stage}"
    yield "single-stream", "cascade"
    yield "single-stream", "ensemble"
