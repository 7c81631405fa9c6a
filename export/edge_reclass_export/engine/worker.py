"""The child process that builds one engine. Every call into TensorRT's builder stands in this file.

A process of its own, because a build may take the whole machine's memory and be killed for it, cannot be
interrupted from Python while it is in native code, and gives its memory back only when it ends.

One path for TensorRT 10.3 to 11.x and TensorRT-RTX: networks are strongly typed, so the graph says what is float16,
and no precision flag exists to be set. What some version lacks is asked for with ``getattr``.

It reads one request (JSON) from standard input, writes the plan into the file that the request names, and reports what
happens as JSON lines on what was standard output; TensorRT's own prints go to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Report = Callable[..., None]
"""Sends one event: its name and JSON values."""

_MEMORY = re.compile(
    r"out ?of ?memory|bad_alloc|cannot allocate|insufficient (device |host )?memory|requested amount of GPU memory"
    r"|MemoryAllocation|FAILED_ALLOCATION|insufficient workspace",
    re.IGNORECASE,
)
_PROGRESS_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class BuildProblem(Exception):
    """Why there is no engine. ``kind``: device, unsupported, mismatch, memory, build or disk."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def build(trt: Any, request: dict[str, Any], report: Report) -> None:
    """Build the engine that ``request`` describes and write it to ``request["plan"]``.

    Raises:
        BuildProblem: with the reason in TensorRT's words.
    """
    problems: list[str] = []
    logger = _logger(trt, problems, report)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the bindings' word for a null pointer
        raise BuildProblem("device", _last(problems, str(error))) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, logger, Path(request["onnx"]))
    _check_io(network, request)
    config = builder.create_builder_config()
    # The front end needs float32 as it is: rounded to TF32, a loud partial would bury the quiet bins of a spectrum.
    config.clear_flag(trt.BuilderFlag.TF32)
    if request["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
    _add_profile(builder, config, request["profile"], problems)
    if request["flavour"] == "tensorrt-rtx":
        _set_compute_capability(trt, config, request["sm"])
    if getattr(trt, "IProgressMonitor", None) is not None:
        config.progress_monitor = _monitor(trt, report)
    _load_timing_cache(config, request, report)
    began = time.perf_counter()
    try:
        serialized = builder.build_serialized_network(network, config)
    except MemoryError as error:
        raise BuildProblem("memory", _last(problems, "out of memory")) from error
    if serialized is None:
        reason = _last(problems, "TensorRT gave no reason")
        raise BuildProblem("memory" if any(_MEMORY.search(text) for text in problems) else "build", reason)
    seconds = time.perf_counter() - began
    try:
        _write(Path(request["plan"]), serialized)
        _save_timing_cache(config, request)
    except OSError as error:
        raise BuildProblem("disk", f"the engine cannot be written: {error.strerror}") from error
    report("built", seconds=seconds, layers=network.num_layers, peak_bytes=_peak_bytes())


def _parse(trt: Any, network: Any, logger: Any, onnx: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    # Off only in old plugins' favour: the native layer needs no plugin library at run time.
    parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if parser.parse_from_file(str(onnx)):
        return
    found = []
    for number in range(parser.num_errors):
        fault = parser.get_error(number)
        where = f"node {fault.node_name()!r} ({fault.node_operator()})" if fault.node_operator() else "the file"
        found.append(f"{where}: {fault.desc()}")
    raise BuildProblem("unsupported", "; ".join(found) or "the parser gave no reason")


def _check_io(network: Any, request: dict[str, Any]) -> None:
    """The network takes what the manifest says; outputs that nobody asked for are left out of the engine."""
    wanted = request["profile"]
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    inputs = [(tensor.name, tuple(tensor.shape)) for tensor in tensors]
    if inputs != [(wanted["input"], (-1, wanted["width"]))]:
        raise BuildProblem("mismatch", f"expected the input {wanted['input']}[batch, {wanted['width']}], got {inputs}")
    outputs = [network.get_output(number) for number in range(network.num_outputs)]
    for tensor in outputs:
        if tensor.name != request["output"]:
            network.unmark_output(tensor)
        elif tuple(tensor.shape) != (-1, request["dim"]):
            raise BuildProblem("mismatch", f"expected {tensor.name}[batch, {request['dim']}], got {list(tensor.shape)}")
    names = [tensor.name for tensor in outputs]
    if request["output"] not in names:
        raise BuildProblem("mismatch", f"expected the output {request['output']}, got {', '.join(names)}")


def _add_profile(builder: Any, config: Any, wanted: dict[str, Any], problems: list[str]) -> None:
    profile = builder.create_optimization_profile()
    width = wanted["width"]
    profile.set_shape(wanted["input"], (wanted["min"], width), (wanted["opt"], width), (wanted["max"], width))
    if config.add_optimization_profile(profile) < 0:
        raise BuildProblem("build", _last(problems, f"the optimisation profile {wanted} was refused"))


def compute_capability(trt: Any, sm: str) -> Any:
    """TensorRT-RTX's name for compute capability ``sm``, such as ``8.6``. Needs no GPU and no builder.

    Raises:
        BuildProblem: it does not build for that one.
    """
    capabilities = getattr(trt, "ComputeCapability", None)
    if capabilities is None:
        raise BuildProblem("device", "this TensorRT-RTX cannot build for a chosen compute capability; update it")
    name = "SM" + sm.replace(".", "")
    known = [member for member in capabilities.__members__ if member.startswith("SM")]
    if name not in known:
        raise BuildProblem("device", f"TensorRT-RTX {trt.__version__} does not build for SM {sm}: {', '.join(known)}")
    return capabilities.__members__[name]


def _set_compute_capability(trt: Any, config: Any, sm: str) -> None:
    wanted = compute_capability(trt, sm)
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(wanted, 0):
        raise BuildProblem("device", f"TensorRT-RTX {trt.__version__} refuses to build for SM {sm}")


def _load_timing_cache(config: Any, request: dict[str, Any], report: Report) -> None:
    if request["timing_cache"] is None:
        return
    file = Path(request["timing_cache"])
    content = file.read_bytes() if file.exists() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        report("note", text=f"the timing cache {file} is of another device or version; it is made anew")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)


def _save_timing_cache(config: Any, request: dict[str, Any]) -> None:
    if request["timing_cache"] is None:
        return
    cache = config.get_timing_cache()
    if cache is not None:
        _write(Path(request["new_timing_cache"]), cache.serialize())


def _write(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _logger(trt: Any, problems: list[str], report: Report) -> Any:
    names = {trt.ILogger.INTERNAL_ERROR: "error", trt.ILogger.ERROR: "error", trt.ILogger.WARNING: "warning"}

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors for the message, passes on errors and warnings."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            level = names.get(severity)
            if level == "error":
                problems.append(message)
            if level is not None:
                report("log", level=level, text=message)

    return Logger()


def _monitor(trt: Any, report: Report) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Reports how far the outermost phase is and what it is at, ten times a second at most."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._totals: dict[str, int] = {}
            self._outer = ["", 0]
            self._reported = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            if parent_phase is None:
                self._outer = [phase_name, 0]
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer[0]:
                self._outer[1] = step + 1
            self._report(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._totals.pop(phase_name, None)

        def _report(self, phase: str, done: int) -> None:
            now = time.monotonic()
            if now - self._reported < _PROGRESS_SECONDS:
                return
            self._reported = now
            outer, outer_done = self._outer
            report(
                "progress",
                done=outer_done,
                total=self._totals.get(str(outer), 0),
                phase=phase,
                phase_done=done,
                phase_total=self._totals.get(phase, 0),
            )

    return Monitor()


def _last(problems: list[str], otherwise: str) -> str:
    return " | ".join(problems[-3:]) if problems else otherwise


def _peak_bytes() -> int:
    """Most memory that this process held at once; getrusage would count the parent's from before exec."""
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def main() -> None:
    """Read the request, build, report; the exit code is 0 even for a problem that was reported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too and ends this process
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    warnings.simplefilter("ignore", DeprecationWarning)
    request = json.loads(sys.stdin.read())
    channel = os.dup(1)
    os.dup2(2, 1)

    def report(event: str, **values: object) -> None:
        # One write for each line: TensorRT logs from several threads.
        os.write(channel, (json.dumps({"event": event, **values}) + "\n").encode())

    try:
        build(import_module(request["module"]), request, report)
    except BuildProblem as problem:
        report("problem", kind=problem.kind, text=str(problem))
    except MemoryError:
        report("problem", kind="memory", text="out of memory")
