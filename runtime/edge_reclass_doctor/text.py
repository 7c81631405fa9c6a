"""Everything that ``edge-reclass doctor --verbose`` found: aligned, at most a hundred columns, no colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from edge_reclass.run import printable
from edge_reclass_doctor.machine import ClockRange, Jetson, Machine
from edge_reclass_doctor.report import ApplianceState, BundleState, DeviceState, EnginesState, Report

WIDTH = 100
_LABEL = 14
_TEMPERATURES = 6

Row = tuple[str, str]


def details(report: Report) -> str:
    """Everything that was found, as text for people."""
    machine = report.machine
    sections: list[tuple[str, list[Row]]] = [
        ("machine", list(_machine(machine))),
        ("gpu", list(_gpu(machine))),
        ("software", list(_software(machine))),
    ]
    if machine.jetson is not None:
        sections.append(("jetson", list(_jetson(machine.jetson, machine))))
    elif rows := list(_heat_and_power(machine)):
        sections.append(("sensors", rows))
    sections += [
        ("bundle", list(_bundle(report.bundle))),
        ("engines", list(_engines(report.engines))),
        ("devices", list(_devices(report))),
    ]
    if report.appliance is not None:
        sections.append(("appliance", list(_appliance(report.appliance))))
    lines = []
    for title, rows in sections:
        lines += [title]
        for label, text in rows:
            lines += wrapped(label, text)
        lines += [""]
    return "\n".join(lines[:-1])


def wrapped(label: str, text: str, *, mark: str = "") -> list[str]:
    """A label and its text in lines; ``mark`` stands before the label."""
    indent = 2 + _LABEL
    first = f"{mark:<2}{printable(label):<{_LABEL}}"
    if len(printable(label)) >= _LABEL:
        first = f"{mark:<2}{printable(label)}  "
    return textwrap.wrap(
        printable(text) or "–",
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _machine(machine: Machine) -> Iterator[Row]:
    system, cpu = machine.os, machine.cpu
    if machine.jetson is not None:
        yield "model", machine.jetson.model
    kernel = f"Linux {system.kernel}" if system.kernel else None
    container = f"in a container ({system.container})" if system.container else None
    yield "system", joined(system.name, kernel, system.architecture, container)
    python = machine.python
    where = python.virtual_environment or python.executable
    sees = {True: ", sees the system's packages", False: ", without the system's packages", None: ""}
    yield "python", f"{python.version} in {where}{sees[python.sees_system_packages]}"
    cores = f"{cpu.cores_usable} cores"
    if cpu.cores_total is not None and cpu.cores_total != cpu.cores_usable:
        cores = f"{cpu.cores_usable} of {cpu.cores_total} cores usable"
    if cpu.quota_cores is not None:
        cores += f" (limited to {cpu.quota_cores:g})"
    governors = dict.fromkeys(policy.governor for policy in cpu.policies if policy.governor)
    yield "cpu", joined(cpu.model, cores, " and ".join(governors), _cpu_clock(machine))
    memory = machine.memory
    parts = [f"{gib(memory.available_bytes)} of {gib(memory.total_bytes)} available"]
    if memory.limit_bytes is not None:
        parts.append(f"limited to {gib(memory.limit_bytes)}")
    if memory.swap_total_bytes:
        parts.append(f"swap {gib(memory.swap_free_bytes)} of {gib(memory.swap_total_bytes)} free")
    else:
        parts.append("no swap")
    yield "memory", joined(*parts)
    disks = dict.fromkeys((disk.looked_at, disk.free_bytes, disk.total_bytes) for disk in machine.disks)
    for where, free, total in disks:
        yield "disk", f"{gib(free)} of {gib(total)} free at {where}"


def _cpu_clock(machine: Machine) -> str | None:
    now = [policy.current_mhz for policy in machine.cpu.policies if policy.current_mhz is not None]
    most = [policy.max_mhz for policy in machine.cpu.policies if policy.max_mhz is not None]
    return f"{max(now):.0f} of {max(most):.0f} MHz" if now and most else None


def _gpu(machine: Machine) -> Iterator[Row]:
    gpu = machine.gpu
    if gpu is None:
        yield "none", machine.reasons.get("gpu", "")
        return
    shared = " shared with the CPU" if gpu.integrated else ""
    memory = f"{gib(gpu.memory_bytes)}{shared}" if gpu.memory_bytes is not None else None
    yield "name", joined(gpu.name, f"SM {gpu.sm}", memory)
    newest = f"serves CUDA up to {gpu.cuda_driver_version}" if gpu.cuda_driver_version else None
    yield "driver", joined(gpu.driver, newest)
    nvml = machine.nvml
    if nvml is None:
        return
    state = joined(
        _unit(nvml.temperature_celsius, "°C"),
        _unit(nvml.power_watts, "W") and f"{nvml.power_watts:.0f} of {_unit(nvml.power_limit_watts, 'W') or '?'}",
        _unit(nvml.sm_mhz, "MHz") and f"{nvml.sm_mhz:.0f} of {_unit(nvml.sm_max_mhz, 'MHz') or '?'}",
        f"{gib(nvml.memory_free_bytes)} free" if nvml.memory_free_bytes is not None and not gpu.integrated else None,
    )
    if state:
        yield "now", state


def _software(machine: Machine) -> Iterator[Row]:
    tensorrt, runtime, cuda = machine.tensorrt, machine.onnxruntime, machine.cuda
    if tensorrt is None:
        yield "TensorRT", machine.reasons.get("tensorrt", "none")
    else:
        name = "TensorRT-RTX" if tensorrt.flavour == "tensorrt-rtx" else "TensorRT"
        yield "TensorRT", f"{name} {tensorrt.version or 'of unknown version'} in {tensorrt.path}"
    if runtime is None:
        yield "ONNX Runtime", machine.reasons.get("onnxruntime", "none")
    else:
        yield "ONNX Runtime", f"{runtime.version} with {', '.join(runtime.providers)}"
    cudnn = f"cuDNN {cuda.cudnn}" if cuda.cudnn else "no cuDNN found"
    yield "CUDA", joined(f"toolkit {cuda.toolkit}" if cuda.toolkit else "no toolkit found", cudnn)
    yield "CUDA binding", joined(f"{cuda.binding} {cuda.binding_version}" if cuda.binding else "none")
    yield "libraries", ", ".join(f"{name} {version}" for name, version in machine.libraries.items() if version)


def _jetson(jetson: Jetson, machine: Machine) -> Iterator[Row]:
    reasons = machine.reasons
    yield "JetPack", f"{jetson.jetpack or 'unknown'} (L4T {jetson.l4t or 'unknown'})"
    if jetson.power_mode is None:
        yield "power mode", reasons.get("jetson.power_mode", "unknown")
    else:
        others = ", ".join(mode.name for mode in jetson.power_modes)
        yield "power mode", f"{jetson.power_mode.name}" + (f" (of {others})" if others else "")
    gpu = next(iter(jetson.gpu_clocks), None)
    locked = {True: "locked", False: "not locked", None: None}[jetson.clocks_locked]
    cpu = _cpu_clock(machine)
    yield (
        "clocks",
        joined(
            f"GPU {_range(gpu)}" if gpu else None,
            f"CPU {cpu}" if cpu else None,
            f"memory {jetson.emc_mhz:.0f} MHz" if jetson.emc_mhz is not None else None,
            locked,
        ),
    )
    yield from _heat_and_power(machine)
    if jetson.overcurrent_events:
        yield "alarms", f"{jetson.overcurrent_events} over-current events since the start"


def _heat_and_power(machine: Machine) -> Iterator[Row]:
    zones = [zone for zone in machine.thermal if zone.celsius is not None]
    if zones:
        zones.sort(key=lambda zone: -(zone.celsius or 0.0))
        shown = ", ".join(f"{zone.name.removesuffix('-thermal')} {zone.celsius:.0f}" for zone in zones[:_TEMPERATURES])
        limits = [zone.trip_celsius for zone in zones if zone.trip_celsius is not None]
        yield "temperatures", f"{shown} °C" + (f"; slows down from {min(limits):.0f} °C on" if limits else "")
    power = machine.power
    if power.rails:
        parts = ", ".join(
            f"{rail.name} {rail.watts:.1f}"
            for rail in power.rails
            if rail.watts is not None and rail.name != power.total_rail
        )
        whole = f"{power.total_watts:.1f} W ({power.total_rail})" if power.total_watts is not None else "total unknown"
        yield "power", f"{whole}; parts: {parts} W" if parts else whole
    fans = [joined(_unit(fan.duty_percent, "%"), _unit(fan.rpm, "rpm")) for fan in machine.fans]
    if any(fans):
        yield "fan", ", ".join(filter(None, fans))


def _bundle(bundle: BundleState) -> Iterator[Row]:
    yield "path", bundle.path
    if bundle.name is not None:
        yield "name", f"{bundle.name}, digest {(bundle.digest or '')[:16]}"
        hashes = f"{len(bundle.faults)} files are wrong" if bundle.faults else "all hashes match"
        yield "files", f"{bundle.files}, {bundle.bytes / 1e6:.1f} MB, {hashes}"
        yield "policy", f"{bundle.policy}: {' → '.join(bundle.stages)}"
        if bundle.untrained:
            yield "untrained", ", ".join(bundle.untrained)
    else:
        yield "state", "cannot be used, see below"


def _engines(engines: EnginesState) -> Iterator[Row]:
    yield "folder", engines.folder + ("" if engines.writable else " (not writable by this user)")
    yield "for", engines.target if engines.target is not None else f"nothing here: {engines.reason}"
    for one in engines.engines:
        size = f", {one.bytes / 1e6:.0f} MB, batch up to {one.max_batch}" if one.bytes is not None else ""
        taken = ", taken" if one.used else ""
        reason = "" if one.status == "missing" else f": {one.reason}"
        yield f"{one.stage} {one.precision}", f"{one.status}{taken}{size}{reason}"
    for fault in engines.unreadable:
        yield "unreadable", fault
    if not engines.engines and not engines.unreadable:
        yield "engines", "none stored" if engines.target is None else "none needed: no stage has a graph"


def _devices(report: Report) -> Iterator[Row]:
    no_gpu = report.machine.reasons.get("gpu")
    for device in report.devices:
        yield device.device, _device(device, device.device == report.chosen, no_gpu)


def _device(device: DeviceState, chosen: bool, no_gpu: str | None) -> str:
    if not device.usable:
        # The page has said above why there is no GPU.
        return "not usable: " + "; ".join("no GPU" if one == no_gpu else one for one in device.blockers)
    notes = f" ({'; '.join(device.notes)})" if device.notes else ""
    return f"usable{notes}" + ("  ← taken" if chosen else "")


def _appliance(state: ApplianceState) -> Iterator[Row]:
    yield "program", state.program or "none"
    yield "bundle", f"{state.bundle or 'none'}, before it {state.previous or 'none'}"
    yield "user", state.user
    yield "starts", state.when
    if state.library.genres:
        yield "genres", ", ".join(f"{count} {genre}" for genre, count in state.library.genres.items())
    for one in state.sandbox:
        yield one.name, one.detail


def joined(*parts: str | None) -> str:
    """The parts that are there, with commas."""
    return ", ".join(part for part in parts if part)


def gib(size: int | None) -> str:
    """A size in GiB; ``unknown`` for None."""
    return "unknown" if size is None else f"{size / (1 << 30):.1f} GiB"


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.0f} {unit}"


def _range(clock: ClockRange) -> str:
    if clock.current_mhz is None or clock.max_mhz is None:
        return "unknown"
    return f"{clock.current_mhz:.0f} of {clock.max_mhz:.0f} MHz"
