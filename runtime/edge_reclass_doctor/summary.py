"""What ``edge-reclass doctor`` prints first: one line for each area, then what is to be fixed, then the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edge_reclass.run import printable
from edge_reclass_doctor.machine import Machine
from edge_reclass_doctor.report import ApplianceState, EnginesState, Problem, Report
from edge_reclass_doctor.text import gib, joined, wrapped

_AREAS = {
    "bundle": ("bundle",),
    "engines": ("engine", "engines"),
    "software": ("onnxruntime", "cuda-provider", "tensorrt", "binding"),
    "gpu": ("gpu", "throttled"),
    "jetson": ("l4t", "large-allocations", "power-mode", "clocks", "overcurrent"),
    "machine": ("memory", "disk", "hot", "system"),
    "service": ("service",),
    "library": ("tracks", "library"),
    "music": ("music",),
    "sandbox": ("sandbox",),
}
"""Area → how the codes of its problems begin."""

_MARKS = {"problem": "✗", "advice": "!"}


def summary(report: Report) -> str:
    """The report for an owner, as text."""
    lines = [f"edge-reclass {report.version}", ""]
    for area, text in _rows(report):
        lines += wrapped(area, text, mark=mark(area, report.problems))
    return "\n".join([*lines, "", *fixes(report.problems), "", outcome(report)])


def mark(area: str, problems: Iterable[Problem]) -> str:
    """✗ where an area has a problem, ! where there is advice, else ✓."""
    found = {one.severity for one in problems if one.code.startswith(_AREAS[area])}
    return next((sign for severity, sign in _MARKS.items() if severity in found), "✓")


def fixes(problems: Sequence[Problem]) -> Iterator[str]:
    """Each problem, and below it the command that fixes it."""
    if not problems:
        yield "nothing to fix"
        return
    yield "to fix"
    for problem in problems:
        yield from wrapped(problem.severity, problem.message)
        # Commands stay in one line, to be copied.
        yield f"{'':<16}→ {printable(problem.fix)}"


def outcome(report: Report) -> str:
    """The last line: what runs on what."""
    asked = f"--device {report.wanted}"
    if report.chosen is not None:
        return f"{asked}: runs on {report.chosen}"
    return f"{asked}: cannot run this bundle here (exit code {report.exit_code})"


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    machine, bundle = report.machine, report.bundle
    memory, disk = machine.memory, next(iter(machine.disks), None)
    yield (
        "machine",
        joined(
            machine.jetson.model if machine.jetson else machine.os.name,
            f"{machine.cpu.cores_usable} cores",
            f"{gib(memory.available_bytes)} of {gib(memory.total_bytes)} memory available",
            f"{gib(disk.free_bytes)} free on the disk" if disk else None,
        ),
    )
    if machine.jetson is not None:
        mode = machine.jetson.power_mode
        yield (
            "jetson",
            joined(
                f"JetPack {machine.jetson.jetpack or 'unknown'} (L4T {machine.jetson.l4t or 'unknown'})",
                f"power mode {mode.name}" if mode else None,
            ),
        )
    if machine.gpu is not None:
        yield "gpu", joined(machine.gpu.name, f"SM {machine.gpu.sm}", machine.gpu.driver)
    elif machine.jetson is not None:
        yield "gpu", f"none: {machine.reasons.get('gpu', '')}"
    yield "software", _software(machine)
    if bundle.name is None:
        yield "bundle", f"{bundle.path} cannot be used"
    else:
        hashes = f"{len(bundle.faults)} files are wrong" if bundle.faults else "all hashes match"
        yield "bundle", f"{bundle.name}, {len(bundle.stages)} stages, {bundle.files} files, {hashes}"
    if report.engines.target is not None:
        yield "engines", _engines(report.engines)
    if report.appliance is not None:
        yield from _appliance(report.appliance)


def _software(machine: Machine) -> str:
    runtime, tensorrt = machine.onnxruntime, machine.tensorrt
    return joined(
        f"ONNX Runtime {runtime.version}" if runtime else "no ONNX Runtime",
        f"TensorRT {tensorrt.version}" if tensorrt else None,
        f"Python {machine.python.version}",
    )


def _engines(engines: EnginesState) -> str:
    stages = dict.fromkeys(one.stage for one in engines.engines)
    ready = {one.stage for one in engines.engines if one.used}
    return f"{len(ready)} of {len(stages)} stages have one for this machine" if stages else "none needed"


def _appliance(state: ApplianceState) -> Iterator[tuple[str, str]]:
    yield "service", service_line(state)
    library = state.library
    if library.reason is not None:
        yield "library", library.reason
    else:
        counts = [f"{count} {name}" for name, count in library.statuses.items()]
        absent = f"{library.absent} not there now" if library.absent else None
        yield "library", joined(f"{library.tracks} tracks", *counts, absent)
    for folder in state.music:
        yield "music", f"{folder.folder}: {folder.reason or f'{state.user} may read it'}".partition("; to fix it: ")[0]
    weak = [one.name for one in state.sandbox if one.holds is False]
    unseen = [one.name for one in state.sandbox if one.holds is None]
    holds = [one.name for one in state.sandbox if one.holds]
    yield (
        "sandbox",
        joined(
            f"closed by the kernel: {', '.join(holds)}" if holds else None,
            f"not closed: {', '.join(weak)}" if weak else None,
            f"not seen: {', '.join(unseen)}" if unseen else None,
        ),
    )


def service_line(state: ApplianceState) -> str:
    """How the service does, and when it runs next."""
    service = state.service
    if service is None:
        return "systemd does not answer"
    since = f"since {service.started}" if service.active == "active" and service.started else None
    ended = None
    if service.active != "active" and service.ended:
        code = "" if service.exit_code is None else f", exit code {service.exit_code}"
        ended = f"last run ended {service.ended} ({service.result}{code})"
    next_start = "runs all the time" if service.resident else f"next start: {service.next_start or 'none'}"
    again = f"restarted {service.restarts} times" if service.restarts else None
    return joined(
        service.active, since, service.status if service.active == "active" else None, ended, again, next_start
    )
