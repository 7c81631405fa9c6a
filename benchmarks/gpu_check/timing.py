"""Clocks and repetition: contenders by turns; CUDA events, and the host's clock around a synchronised call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Samples", "Times", "by_turns", "device_timer", "synchronize"]

LEAST_ROUNDS = 10
MOST_ROUNDS = 200
SLOW_ROUNDS = 3
MOST_FACTOR = 8.0
"""A group of contenders gets at most so many times the asked seconds, however slow one of them is."""


@dataclass(frozen=True)
class Times:
    """Seconds of one run: end to end by the host's clock, and the device's own where it has one."""

    host: float
    device: float | None = None
    copy_in: float | None = None
    copy_out: float | None = None


@dataclass
class Samples:
    """All timed runs of one contender."""

    host: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    copy_in: list[float] = field(default_factory=list)
    copy_out: list[float] = field(default_factory=list)

    def add(self, times: Times) -> None:
        for name in ("host", "device", "copy_in", "copy_out"):
            if (value := getattr(times, name)) is not None:
                getattr(self, name).append(round(value, 9))

    def to_plain(self) -> dict[str, Any]:
        """Medians in milliseconds (None where there is no such clock), and every sample in seconds."""
        plain: dict[str, Any] = {"runs": len(self.host)}
        for name in ("host", "device", "copy_in", "copy_out"):
            values = getattr(self, name)
            plain[f"{name}_ms"] = round(1e3 * statistics.median(values), 6) if values else None
        plain["samples"] = {
            name: getattr(self, name) for name in ("host", "device", "copy_in", "copy_out") if getattr(self, name)
        }
        return plain


def by_turns(contenders: Mapping[str, Callable[[], Times]], seconds: float) -> dict[str, Samples]:
    """Every contender once per round, so that whatever else the machine does falls on all of them.

    Rounds go on until there are ``LEAST_ROUNDS`` and each contender has ``seconds`` on average; a group that takes
    ``MOST_FACTOR`` times as long stops after ``SLOW_ROUNDS``. Warming up is the caller's.
    """
    samples = {name: Samples() for name in contenders}
    if not contenders:
        return samples
    began = time.perf_counter()
    for round_number in range(1, MOST_ROUNDS + 1):
        for name, once in contenders.items():
            samples[name].add(once())
        spent = time.perf_counter() - began
        asked = seconds * len(contenders)
        enough = round_number >= LEAST_ROUNDS and spent >= asked
        too_slow = round_number >= SLOW_ROUNDS and 0.0 < MOST_FACTOR * asked <= spent
        if enough or too_slow:
            break
    return samples


def synchronize(device: str) -> None:
    """Wait until the device has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def device_timer(device: str, work: Callable[[], object], repeats: int, warm_up: int = 3) -> list[float]:
    """Seconds of each of ``repeats`` runs of ``work``: CUDA events on a GPU, else the host's clock."""
    for _ in range(warm_up):
        work()
    synchronize(device)
    if device != "cuda":
        found = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
        return found
    event: Any = torch.cuda.Event
    marks = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in marks:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in marks]
