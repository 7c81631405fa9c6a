"""The command line: sets the machine up, then runs each stage in a process of its own until the time is over."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_check import RTX_STAGES, STAGES, setup

if TYPE_CHECKING:
    from gpu_check.journal import Journal, Settings

_GRACE = 15.0
"""Seconds that a stage may go on after the deadline before it is killed."""
_LEAST = 5.0
TINY_GRAPHS = Path(__file__).resolve().parents[2] / "tests" / "data" / "gpu_check"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 nothing failed (some may be left); 1 something failed or is wrong; 2 usage; 5 nothing can run."""
    options = _parser().parse_args(arguments)
    began = time.time()
    state, out = options.state.absolute(), options.out.absolute()
    try:
        if options.summary is None:
            setup.install(options.carry, state / "site")
            facts = setup.machine(options.device, state)
    except setup.SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 5
    # Not before: on a bare machine they need what was carried.
    from edge_reclass.errors import UsageError
    from gpu_check import summary
    from gpu_check.journal import Item, Journal, Settings, read

    try:
        if options.summary is not None:
            out.mkdir(parents=True, exist_ok=True)
            print(summary.write(list(read(options.summary)), out))
            return 0
        settings = Settings(
            state=str(state),
            out=str(out),
            device=options.device,
            tiny=options.tiny,
            graphs=str((options.graphs or _graphs(options.carry, options.tiny)).absolute()),
            batches=options.batches or ([2, 3] if options.tiny else [6, 24]),
            seconds=options.seconds if options.seconds is not None else (0.05 if options.tiny else 1.0),
            jobs=options.jobs or (2 if options.tiny else 16),
            deadline=began + options.call_seconds,
        )
        journal = Journal(state, out)
        _refuse_mixture(journal, settings)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    journal.add(settings)
    journal.add(Item(stage="setup", name="machine", status="ok", seconds=time.time() - began, facts=facts))
    for stage in options.stages or (RTX_STAGES if options.rtx else STAGES):
        _stage(journal, settings, stage)
        summary.write(journal.lines, out)
    print(summary.write(journal.lines, out))
    print(f"written: {out}/gpu_check.md; {time.time() - began:.0f} s")
    return 1 if summary.bad(journal.lines) else 0


def _stage(journal: Journal, settings: Settings, stage: str) -> None:
    """Run one stage to its end, or kill it after the deadline; what it says is kept and shown."""
    from edge_reclass.errors import EdgeReclassError
    from edge_reclass_bench.conduct import process_events
    from edge_reclass_bench.scenarios.context import Broke
    from gpu_check.journal import Begun, Event, Item

    left, began, name = settings.deadline - time.time(), time.monotonic(), "all"
    print(f"== {stage}, {left:.0f} s left", flush=True)
    if left < _LEAST:
        journal.add(Item(stage=stage, name=name, status="left", reason="the call's time is over"))
        return
    try:
        for event in process_events("gpu_check.worker", journal.task(stage, settings), Event, left + _GRACE):
            if isinstance(event, Broke):
                raise EdgeReclassError(event.message)
            journal.add(event)
            if isinstance(event, Begun):
                name = event.name
            else:
                name = "all"
                print(f"   {event.name}: {event.status}, {event.seconds:.1f} s {event.reason[:300]}", flush=True)
    except EdgeReclassError as error:
        late = " (it was not done at the deadline)" if time.time() > settings.deadline + _GRACE - 1.0 else ""
        reason = f"{error}{late}"
        print(f"   {name}: crashed: {reason}", flush=True)
        spent = time.monotonic() - began
        journal.add(Item(stage=stage, name=name, status="crashed", seconds=spent, reason=reason))
    print(f"   {stage}: {time.monotonic() - began:.1f} s", flush=True)


def _graphs(carry: Sequence[Path], tiny: bool) -> Path:
    found = [folder / "graphs" for folder in carry if (folder / "graphs").is_dir()]
    return found[0] if found else TINY_GRAPHS if tiny else Path("graphs")


def _refuse_mixture(journal: Journal, settings: Settings) -> None:
    """A tiny network's items are no full-size one's. Raises ``UsageError``."""
    from edge_reclass.errors import UsageError
    from gpu_check.journal import Settings

    for line in journal.lines:
        if isinstance(line, Settings) and line.label != settings.label:
            raise UsageError(
                f"--state {settings.state}: expected one of a {settings.label!r}, got {line.label!r}; name another"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description="See docs/gpu-check.md.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="some of the stages; default: all, in their order")
    parser.add_argument("--state", type=Path, default=Path("/tmp/edge-reclass-gpu-check"), help="where calls go on")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu_check.jsonl and gpu_check.md")
    parser.add_argument("--carry", type=Path, action="append", default=[], help="a folder made by make_carry.sh")
    parser.add_argument("--graphs", type=Path, help="folder made by carry/graphs.py [default: graphs in --carry]")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks: tests the script, measures nothing")
    parser.add_argument("--rtx", action="store_true", help="the second call: TensorRT or TensorRT-RTX")
    parser.add_argument("--batches", type=_numbers, help="default: 6,24")
    parser.add_argument("--seconds", type=float, help="time of each contender at each batch [default: 1]")
    parser.add_argument("--jobs", type=int, help="lanes of the cascade [default: 16]")
    parser.add_argument("--call-seconds", type=float, default=540.0, help="nothing is begun that does not fit")
    parser.add_argument("--summary", type=Path, metavar="JOURNAL", help="only write the page of this gpu_check.jsonl")
    return parser


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers from 1 on, separated by commas, got {text!r}")
    return numbers


if __name__ == "__main__":
    raise SystemExit(main())
