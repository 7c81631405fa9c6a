"""TensorRT's runtime over a :class:`FakeCuda`: the plans of tests/export/fakes/tensorrt, run by ONNX Runtime.

It knows the names that TensorRT 10.3, 11.4 and TensorRT-RTX 1.7 have in common, as far as edge-reclass uses them, and
holds a program to their rules: shapes within the profile and set, addresses set, activation memory given and large
enough, one plain run of a shape before it is captured, one context per captured graph, the device current on the
thread. A rule that is broken gives False or null and a logged error, as TensorRT does.
"""

from __future__ import annotations

import enum
import gc
import json
import weakref
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

from backends.fakes.cuda import ILLEGAL, SUCCESS, FakeCuda

Spoil = Callable[[str, int, np.ndarray], np.ndarray]
"""(the ONNX file's name, batch, rows) → the rows that the device gives instead."""


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class FakeTensorRT:
    """What the fake engines share: the device, planned faults, and what is alive."""

    def __init__(self, cuda: FakeCuda, builder: ModuleType) -> None:
        self.cuda, self.builder = cuda, builder
        self.counts: Counter[str] = Counter()
        self.spoil: Spoil | None = None
        self.spoil_replay: Spoil | None = None
        self.engine_changes: dict[str, Any] = {}  # tensors, shapes, dtypes, profiles: instead of the plan's
        self.memory_bytes = 4096
        self._faults: dict[tuple[str, int], str] = {}
        self._alive: dict[str, weakref.WeakSet[Any]] = {}
        self._logger: Any = None

    def fail(self, function: str, message: str, nth: int = 1) -> None:
        """The ``nth`` call of ``function`` from now on fails and logs ``message``."""
        self._faults[function, self.counts[function] + nth] = message

    def fails(self, function: str) -> bool:
        self.counts[function] += 1
        message = self._faults.pop((function, self.counts[function]), None)
        if message is None and not self.cuda.is_current():
            message = f"{function}: no CUDA context is current on this thread"
        if message is not None:
            self.error(message)
        return message is not None

    def error(self, message: str) -> None:
        logger = self._logger() if self._logger is not None else None
        if logger is None:
            self.cuda.violations.append("TensorRT's logger is gone")
        else:
            logger.log(self.builder.ILogger.ERROR, message)

    def refuse(self, message: str) -> bool:
        self.error(message)
        return False

    def born(self, thing: Any) -> None:
        self._alive.setdefault(type(thing).__name__, weakref.WeakSet()).add(thing)

    def died(self, thing: Any) -> None:
        if self.cuda.sticky is not None:
            return
        if not self.cuda.is_current():
            self.cuda.violations.append(f"{type(thing).__name__} destroyed while no CUDA context was current")
        if any(stream.queue for stream in self.cuda.streams.values()):
            self.cuda.violations.append(f"{type(thing).__name__} destroyed while work is queued")

    def held(self) -> list[str]:
        if any(map(len, self._alive.values())):
            gc.collect()
        return [f"{len(things)} × TensorRT {name}" for name, things in self._alive.items() if len(things)]

    def module(self) -> ModuleType:
        """What ``import tensorrt`` gives: the builder's fake and the runtime's names."""
        module = ModuleType("tensorrt")
        module.__dict__.update({k: v for k, v in vars(self.builder).items() if not k.startswith("__")})
        module.__version__ = self.builder.__version__
        module.TensorIOMode, module.DataType = TensorIOMode, DataType
        module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
        fake = self

        class Runtime(_Runtime):
            def __init__(self, logger: Any) -> None:
                super().__init__(fake, logger)

        module.Runtime = Runtime
        return module


class _Runtime:
    def __init__(self, fake: FakeTensorRT, logger: Any) -> None:
        fake._logger = fake._logger or weakref.ref(logger)
        self._fake = fake
        if fake.fails("Runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        fake.born(self)

    def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
        fake = self._fake
        if fake.fails("deserialize_cuda_engine"):
            return None
        header, newline, model = content.partition(b"\n")
        try:
            asked = json.loads(header)
        except ValueError:
            asked = None
        if not newline or asked is None:
            fake.error("Error Code 1: Serialization (magic tag does not match)")
            return None
        if asked["version"] != fake.builder.__version__:
            fake.error("Error Code 1: Serialization (Version tag does not match)")
            return None
        return _Engine(self, fake, asked, model)


class _Engine:
    def __init__(self, runtime: _Runtime, fake: FakeTensorRT, asked: dict[str, Any], model: bytes) -> None:
        self._runtime, self._fake, self.file = runtime, fake, asked["file"]
        graph = onnx.load_from_string(model).graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        modes = {v.name: TensorIOMode.INPUT for v in graph.input} | dict.fromkeys(asked["outputs"], TensorIOMode.OUTPUT)
        values = {v.name: v for v in [*graph.input, *graph.output]}
        changes = fake.engine_changes
        self.tensors: dict[str, TensorIOMode] = changes.get("tensors", modes)
        self.shapes = {
            name: (-1, values[name].type.tensor_type.shape.dim[1].dim_value) if name in values else (-1,)
            for name in self.tensors
        } | changes.get("shapes", {})
        self._dtypes = dict.fromkeys(self.tensors, DataType.FLOAT) | changes.get("dtypes", {})
        self.profiles = changes.get("profiles", asked["profiles"])
        self.device_memory_size_v2 = fake.memory_bytes
        fake.born(self)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, number: int) -> str:
        return list(self.tensors)[number]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.tensors[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._dtypes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.profiles[profile][name]]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> _Context | None:
        if self._fake.fails("create_execution_context"):
            return None
        return _Context(self, self._fake, strategy)

    def __del__(self) -> None:
        if hasattr(self, "device_memory_size_v2"):
            self._fake.died(self)


class _Context:
    def __init__(self, engine: _Engine, fake: FakeTensorRT, strategy: ExecutionContextAllocationStrategy) -> None:
        self.engine, self._fake = engine, fake
        self.addresses: dict[str, int] = {}
        self.batch: int | None = None
        self.memory: tuple[int, int] | None = None
        self._ran = False  # since the shape was set
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            fake.cuda.violations.append("a context allocates its own memory: it is not shared between graphs")
        fake.born(self)

    def set_device_memory(self, address: int, nbytes: int) -> None:
        if not self._fake.fails("set_device_memory") and nbytes >= self.engine.device_memory_size_v2:
            self.memory = (address, nbytes)

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._fake.fails("set_tensor_address"):
            return False
        if name not in self.engine.tensors or address % 256:
            return self._fake.refuse(f"setTensorAddress: no tensor {name!r}, or {address:#x} is not aligned")
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._fake.fails("set_input_shape"):
            return False
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        if not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            return self._fake.refuse(
                f"IExecutionContext::setInputShape: {shape} is outside the profile, at most {most}"
            )
        self.batch, self._ran = shape[0], False
        return True

    def execute_async_v3(self, stream: int) -> bool:
        fake = self._fake
        if fake.fails("execute_async_v3"):
            return False
        if self.batch is None:
            return fake.refuse("IExecutionContext::enqueueV3: not all shapes are specified")
        unset = [name for name in self.engine.tensors if name not in self.addresses]
        if unset:
            return fake.refuse(f"IExecutionContext::enqueueV3: the address is not set for {', '.join(unset)}")
        if self.memory is None:
            return fake.refuse("IExecutionContext::enqueueV3: no device memory, or too little")
        if stream == 0:
            return fake.refuse("IExecutionContext::enqueueV3: the default stream")
        capturing = fake.cuda.stream(stream).captured is not None
        if capturing and not self._ran:
            fake.cuda.stream(stream).valid = False
            return fake.refuse("IExecutionContext::enqueueV3: operation not permitted when stream is capturing")
        self._ran = True
        fake.cuda.put(stream, _Pass(self, capturing))
        return True

    def __del__(self) -> None:
        self._fake.died(self)


class _Pass:
    """One queued run, with the shape and addresses of the moment when it was put on the stream."""

    def __init__(self, context: _Context, captured: bool) -> None:
        self._context = weakref.ref(context)
        self._fake, self._captured = context._fake, captured
        self._batch, self._addresses, self._memory = context.batch or 0, dict(context.addresses), context.memory

    def __call__(self) -> str:
        context, cuda = self._context(), self._fake.cuda
        if context is None or self._memory is None or cuda.bytes_at(*self._memory) is None:
            return ILLEGAL
        engine, batch = context.engine, self._batch
        memory = {}
        for name, address in self._addresses.items():
            found = cuda.bytes_at(address, batch * engine.shapes[name][1] * 4)
            if found is None:
                return ILLEGAL
            memory[name] = found.view(np.float32).reshape(batch, -1)
        names = {mode: [n for n, m in engine.tensors.items() if m == mode] for mode in TensorIOMode}
        feed = {name: memory[name] for name in names[TensorIOMode.INPUT]}
        results = engine.session.run(names[TensorIOMode.OUTPUT], feed)
        cuda.clock += 1e-3
        for name, rows in zip(names[TensorIOMode.OUTPUT], results, strict=True):
            for spoil in (self._fake.spoil, self._fake.spoil_replay if self._captured else None):
                rows = rows if spoil is None else spoil(engine.file, batch, rows.copy())
            # A context's buffers hold what belongs to its latest shape: a graph of another one computes nonsense.
            memory[name][:] = np.nan if self._captured and context.batch != batch else rows
        return SUCCESS
