"""The command line: runs each stage in a process of its own, so that one that dies takes no other with it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from gpu_check import summary
from gpu_check.journal import Journal, load_record, mark_crashed, write_atomically
from gpu_check.settings import BATCHES, TINY_BATCHES, Settings

__all__ = ["STAGES", "main"]

STAGES = {
    "setup": "gpu_check.setup",
    "ceilings": "gpu_check.ceilings",
    "export": "gpu_check.exports",
    "build": "gpu_check.builds",
    "verify": "gpu_check.parity",
    "encoders": "gpu_check.encoders",
    "cascade": "gpu_check.cascade",
    "tests": "gpu_check.suite",
}
"""Stage → the module whose ``run(settings, journal)`` does it, in the order in which they build on each other."""

_SETTINGS = "settings.json"
_GRACE = 20.0
"""Seconds that a stage may go on after its deadline before its process is ended."""

_LEAST = 5.0
"""Seconds that have to be left for a stage's process to be started at all."""

_LIST = "numbers separated by commas"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 no stage failed (some may be partial); 1 a stage failed; 2 wrong usage; 5 nothing can run here."""
    plain = list(sys.argv[1:] if arguments is None else arguments)
    if plain[:1] == ["--worker"]:
        return _work(plain[1], Settings.from_json(Path(plain[2]).read_text(encoding="utf-8")))
    parser = _parser()
    options = parser.parse_args(plain)
    stages = list(dict.fromkeys(options.stages or STAGES))
    if unknown := [name for name in stages if name not in (*STAGES, "summary")]:
        parser.error(f"no stage {', '.join(unknown)}: expected some of {', '.join(STAGES)}, summary")
    began = time.time()
    settings = _settings(options, began)
    if wrong := _contradicts(settings):
        parser.error(wrong)
    settings.out.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.state / _SETTINGS, settings.to_json())
    for name in [stage for stage in STAGES if stage in options.again]:
        _record(settings, name).unlink(missing_ok=True)
    statuses = {}
    for name in [stage for stage in STAGES if stage in stages]:
        if settings.deadline - time.time() < _LEAST:
            print(f"== {name}: not begun, this call has no time left; give it again", flush=True)
            continue
        print(f"== {name} ({settings.label}), {settings.deadline - time.time():.0f} s left", flush=True)
        statuses[name] = _stage(settings, name)
        print(f"   {name}: {statuses[name]}", flush=True)
        if name == "setup" and statuses[name] == "failed":
            print("setup failed: the other stages are not begun", file=sys.stderr)
            break
    written = summary.write(settings.state, settings.out, list(STAGES))
    print(summary.table(settings.state, list(STAGES)))
    print(f"written: {', '.join(str(path) for path in written)}; {time.time() - began:.0f} s")
    if statuses.get("setup") == "failed":
        return 5
    return 1 if "failed" in statuses.values() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description="See docs/gpu-check.md.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}, summary; default: all")
    parser.add_argument("--state", type=Path, required=True, help="folder for models, engines and what is done")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results: JSON, table, log")
    parser.add_argument("--carry", type=Path, action="append", default=[], help="a set made by make_carry.sh")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks: tests the script, measures nothing")
    parser.add_argument("--batches", type=_numbers, help=f"{_LIST} [default: {','.join(map(str, BATCHES))}]")
    parser.add_argument("--encoders", default="", help="only these, e.g. mert-330m,openjmla")
    parser.add_argument("--seconds", type=float, help="least time of a measurement [default: 3; tiny: 0.05]")
    parser.add_argument("--compile-mode", default="reduce-overhead", help="torch.compile's; none leaves it out")
    parser.add_argument("--jobs", type=_numbers, help=f"lanes of the cascade, {_LIST} [default: 1,8,16]")
    parser.add_argument("--tracks", type=int, help="tracks of the cascade's library [default: 96]")
    parser.add_argument("--call-seconds", type=float, default=560.0, help="time for all stages of this call")
    parser.add_argument("--again", action="append", choices=list(STAGES), default=[], help="forget this stage's record")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected {_LIST}, got {text!r}")
    return numbers


def _settings(options: argparse.Namespace, began: float) -> Settings:
    tiny = bool(options.tiny)
    return Settings(
        state=options.state.absolute(),
        out=options.out.absolute(),
        device=options.device,
        tiny=tiny,
        carry=tuple(path.absolute() for path in options.carry),
        batches=options.batches or (TINY_BATCHES if tiny else BATCHES),
        encoders=tuple(name for name in options.encoders.split(",") if name),
        seconds=options.seconds if options.seconds is not None else (0.05 if tiny else 3.0),
        compile_mode="" if options.compile_mode == "none" else options.compile_mode,
        jobs=options.jobs or ((1, 2) if tiny else (1, 8, 16)),
        tracks=options.tracks or (6 if tiny else 96),
        deadline=began + options.call_seconds,
    )


def _contradicts(settings: Settings) -> str:
    """Why the state folder cannot be gone on with, or nothing: a tiny network's records are no full-size one's."""
    found = load_record(settings.state / _SETTINGS)
    if found is None or (found["device"], found["tiny"]) == (settings.device, settings.tiny):
        return ""
    before = f"--device {found['device']}" + (" --tiny" if found["tiny"] else "")
    return f"{settings.state} was begun with {before}: use another --state, or remove it"


def _record(settings: Settings, stage: str) -> Path:
    return settings.state / "records" / f"{stage}.json"


def _work(stage: str, settings: Settings) -> int:
    """In the stage's own process."""
    run: Callable[[Settings, Journal], None] = import_module(STAGES[stage]).run
    journal = Journal(_record(settings, stage), stage, label=settings.label, deadline=settings.deadline)
    run(settings, journal)
    journal.finish()
    return 0


def _stage(settings: Settings, stage: str) -> str:
    """Run one stage to its end, or to the deadline; gives the status that its record has then."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = f"{settings.site}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    # Compiled kernels outlive the process: a call that goes on where another ended does not compile again.
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.state / "inductor"))
    environment.setdefault("TRITON_CACHE_DIR", str(settings.state / "triton"))
    command = [sys.executable, "-m", "gpu_check", "--worker", stage, str(settings.state / _SETTINGS)]
    status, late, tail = _watched(command, environment, settings, f"== {stage} ({settings.label})")
    record = load_record(_record(settings, stage))
    if status != 0 or record is None or record["status"] == "running":
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        reason = f"ended at its deadline ({how})" if late else f"the stage's process ended with {how}"
        mark_crashed(_record(settings, stage), stage, settings.label, reason, tail[-15:])
        print(f"   {stage}: {reason}", flush=True)
        return "failed"
    return str(record["status"])


def _watched(
    command: list[str], environment: dict[str, str], settings: Settings, title: str
) -> tuple[int, bool, list[str]]:
    """Run a process to its end or to the deadline, its output shown and logged.

    Gives its exit status, whether it was ended at the deadline, and its last lines.
    """
    tail: deque[str] = deque(maxlen=40)
    late = threading.Event()
    with (
        (settings.out / "gpu_check.log").open("a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,
        ) as process,
    ):

        def end() -> None:
            # The group: what the stage started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def end_late() -> None:
            late.set()
            end()

        guard = threading.Timer(max(1.0, settings.deadline + _GRACE - time.time()), end_late)
        guard.start()
        try:
            log.write(f"{title}\n")
            for line in process.stdout or ():
                print(line, end="", flush=True)
                log.write(line)
                tail.append(line.rstrip())
            status = process.wait()
        finally:
            guard.cancel()
            end()
    return status, late.is_set(), list(tail)
