"""TensorRT's Python API as the runtime uses it: every call into it stands in this file.

One path for TensorRT 10.3 to 11.x and TensorRT-RTX; ``tests/tensorrt_api`` reads the names used here and looks them up
in the real bindings of the oldest and the newest version. Nothing is imported before :func:`open_library`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from edge_reclass.backends.base import TensorSpec
from edge_reclass.engines.record import Flavour
from edge_reclass.errors import DeviceError, EngineError, UsageError
from edge_reclass.installing import install_command

TENSORRT_MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""In the order in which they are tried. The bindings' wheel can also lie there without the package that renames it."""
_MEMORY = re.compile(
    r"out ?of ?memory|bad_alloc|cannot allocate|insufficient (device |host )?memory|requested amount of GPU memory"
    r"|MemoryAllocation|FAILED_ALLOCATION",
    re.IGNORECASE,
)


class Log:
    """The last errors that TensorRT has logged, which hold the reason when a call gives null or false."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)

    def add(self, text: str) -> None:
        """Called from any of TensorRT's threads."""
        self._errors.append(text.strip())

    def failure(self, what: str) -> EngineError | MemoryError:
        """The exception for a call that failed, with the errors logged since the last one."""
        errors = list(self._errors)
        self._errors.clear()
        reason = " | ".join(errors) or "TensorRT gave no reason"
        kind = MemoryError if any(_MEMORY.search(text) for text in errors) else EngineError
        return kind(f"{what}: {reason}")


class Held:
    """The only reference to an object of TensorRT, so that :meth:`drop` frees it immediately.

    A plain variable would live on in the traceback of any exception that passed it, and with it the GPU's memory.
    """

    def __init__(self, it: Any) -> None:
        self.it = it

    def drop(self) -> None:
        """Free the object; the device has to be current."""
        self.it = None


@dataclass(frozen=True)
class Library:
    """An imported TensorRT, and the log of the one logger that it has in this process."""

    flavour: Flavour
    version: str
    api: Any
    logger: Any
    log: Log

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.flavour == 'tensorrt-rtx' else 'TensorRT'} {self.version}"


def open_library(flavour: Flavour | str = "auto", find: Callable[[str], Any] = import_module) -> Library:
    """Import TensorRT, or (``auto``) TensorRT-RTX where only that is installed.

    Raises:
        UsageError: no such flavour.
        DeviceError: it is not installed or cannot be loaded; the message has each reason.
    """
    if flavour != "auto" and flavour not in TENSORRT_MODULES:
        raise UsageError(f"TensorRT's flavour: expected auto, {' or '.join(TENSORRT_MODULES)}, got {flavour!r}")
    reasons = []
    for name, modules in TENSORRT_MODULES.items():
        for module in modules if flavour in (name, "auto") else ():
            try:
                api = find(module)
                version = str(api.__version__)
            except Exception as error:  # bindings fail with ImportError, OSError or AttributeError for a missing .so
                reasons.append(f"{module}: {error}")
                continue
            return Library(name, version, api, *_logger(api))
    raise DeviceError(
        f"no TensorRT can be imported ({'; '.join(reasons)}); it comes with JetPack (make the environment with"
        " --system-site-packages), from NVIDIA's packages, or as TensorRT-RTX:"
        f" {install_command('tensorrt-rtx')}"
    )


@lru_cache(maxsize=4)
def _logger(trt: Any) -> tuple[Any, Log]:
    # TensorRT keeps the first logger of a process for good, so it may never be collected.
    log = Log()
    errors = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                log.add(message)

    return Logger(), log


def make_runtime(library: Library) -> Held:
    """What deserialises engines.

    Raises:
        DeviceError: TensorRT cannot use the GPU.
    """
    trt = library.api
    try:
        return Held(trt.Runtime(library.logger))
    except TypeError as error:  # the bindings' word for a null pointer
        raise DeviceError(str(library.log.failure(f"{library} cannot use the GPU"))) from error


def deserialize(library: Library, runtime: Held, content: bytes) -> Held:
    """The engine that was serialised as ``content``.

    Raises:
        EngineError: it is of another version or device, or is no engine.
        MemoryError: the device has too little memory for its weights.
    """
    try:
        engine = Held(runtime.it.deserialize_cuda_engine(content))
    except MemoryError as error:
        raise MemoryError("out of memory") from error
    except RuntimeError as error:  # what a C++ exception becomes
        raise EngineError(f"TensorRT cannot load it: {error}") from error
    if engine.it is None:
        raise library.log.failure("TensorRT cannot load it")
    return engine


def check_engine(library: Library, engine: Held, source: TensorSpec, target: TensorSpec) -> int:
    """The profile's largest batch, where the engine is float32[batch, width] → float32[batch, width].

    Raises:
        EngineError: it is another one.
    """
    trt = library.api
    found = {}
    for number in range(engine.it.num_io_tensors):
        name = engine.it.get_tensor_name(number)
        kind = "input" if engine.it.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
        found[kind, name] = (engine.it.get_tensor_dtype(name), tuple(engine.it.get_tensor_shape(name)))
    wanted = {("input", source.name): source.width, ("output", target.name): target.width}
    if found.keys() != wanted.keys():
        have, want = (", ".join(f"{kind} {name}" for kind, name in sorted(names)) for names in (found, wanted))
        raise EngineError(f"expected the tensors {want}, got {have}")
    for (kind, name), (dtype, shape) in found.items():
        width = wanted[kind, name]
        if dtype != trt.DataType.FLOAT:
            raise EngineError(f"{kind} {name}: expected float32, got {dtype}")
        if shape != (-1, width):
            raise EngineError(f"{kind} {name}: expected the shape [batch, {width}], got {list(shape)}")
    if engine.it.num_optimization_profiles != 1:
        raise EngineError(f"expected one optimisation profile, got {engine.it.num_optimization_profiles}")
    least, _, most = (tuple(shape) for shape in engine.it.get_tensor_profile_shape(source.name, 0))
    if least[0] > 1:
        raise EngineError(f"expected a profile that takes a batch of 1, got at least {least[0]}")
    return int(most[0])


def device_memory(engine: Held) -> int:
    """Bytes that one execution context needs for its activations, whatever the batch."""
    return int(engine.it.device_memory_size_v2)


def new_context(library: Library, engine: Held, address: int, nbytes: int) -> Held:
    """An execution context with its activations at ``address``, which contexts of one stream may share.

    Raises:
        EngineError, MemoryError: TensorRT cannot make it.
    """
    trt = library.api
    context = Held(engine.it.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED))
    if context.it is None:
        raise library.log.failure("TensorRT makes no execution context")
    context.it.set_device_memory(address, nbytes)
    return context


def set_addresses(library: Library, context: Held, addresses: dict[str, int]) -> None:
    """Say where inputs and outputs lie on the device. Raises ``EngineError`` where TensorRT refuses."""
    for name, address in addresses.items():
        if not context.it.set_tensor_address(name, address):
            raise library.log.failure(f"TensorRT refuses the address of {name}")


def set_batch(library: Library, context: Held, source: TensorSpec, batch: int) -> None:
    """Say how many rows the next run takes. Raises ``EngineError`` where TensorRT refuses."""
    if not context.it.set_input_shape(source.name, (batch, source.width)):
        raise library.log.failure(f"TensorRT refuses the shape [{batch}, {source.width}] of {source.name}")


def enqueue(library: Library, context: Held, stream: int) -> None:
    """Put one run on the stream. Raises ``EngineError`` where TensorRT refuses."""
    if not context.it.execute_async_v3(stream):
        raise library.log.failure("TensorRT refuses to run")
