"""A stand-in for TensorRT's Python bindings, for tests of what surrounds them. It compiles nothing.

It has the names of TensorRT 10.3 that the worker uses and no others, and none of a chosen set, so that a call outside
the common API fails here too. An "engine" is a line of JSON, then the ONNX file. ``FAKE_TENSORRT`` holds what is to
happen, as JSON: ``version``, ``lacks`` (names), ``fail`` (unsupported, memory, null, bad_alloc, no device, killed,
crash, hang), ``precisions`` (fail only where the file's name has one of these), ``started`` (a file to touch).
"""

from __future__ import annotations

import enum
import json
import os
import signal
import time
from pathlib import Path

import onnx

_PLAN = json.loads(os.environ.get("FAKE_TENSORRT", "{}"))
__version__ = _PLAN.get("version", "10.3.0")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class OnnxParserFlag(enum.IntEnum):
    NATIVE_INSTANCENORM = 0


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    TF32 = 7


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class _Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    Severity = _Severity
    INTERNAL_ERROR = _Severity.INTERNAL_ERROR
    ERROR = _Severity.ERROR
    WARNING = _Severity.WARNING
    INFO = _Severity.INFO

    def log(self, severity, message):
        raise NotImplementedError


class IProgressMonitor:
    pass


class _Tensor:
    def __init__(self, value):
        self.name = value.name
        self.shape = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]


class _Network:
    def __init__(self, flags):
        if flags != 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise ValueError(f"expected a strongly typed network, got flags {flags}")
        self._inputs, self._outputs, self.num_layers, self._file = [], [], 0, None

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_input(self, number):
        return self._inputs[number]

    def get_output(self, number):
        return self._outputs[number]

    def unmark_output(self, tensor):
        self._outputs.remove(tensor)


class _ParserError:
    def desc(self):
        return "No importer registered for op: Attention"

    def node_name(self):
        return "layer_3/attention"

    def node_operator(self):
        return "Attention"


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._flags, self.num_errors = network, set(), 0

    def set_flag(self, flag):
        self._flags.add(OnnxParserFlag(flag))

    def parse_from_file(self, path):
        if _fails("unsupported", path):
            self.num_errors = 1
            return False
        model = onnx.load(path)
        self._network._inputs = [_Tensor(value) for value in model.graph.input]
        self._network._outputs = [_Tensor(value) for value in model.graph.output]
        self._network.num_layers = len(model.graph.node)
        self._network._file = path
        return True

    def get_error(self, number):
        return [_ParserError()][number]


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        self.shapes[input] = (min, opt, max)


class _TimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content


class _Config:
    def __init__(self):
        self.flags = {BuilderFlag.TF32}
        self.profiles, self.cache, self.progress_monitor = [], None, None
        self.workspace = None

    def set_memory_pool_limit(self, pool, pool_size):
        if pool is not MemoryPoolType.WORKSPACE:
            raise ValueError(f"expected the workspace, got {pool}")
        self.workspace = pool_size

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        return _TimingCache(bytes(content))

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache.content and not cache.content.startswith(__version__.encode()):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, logger):
        if _PLAN.get("fail") == "no device":
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags):
        return _Network(flags)

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        path = network._file
        if "started" in _PLAN:
            Path(_PLAN["started"]).touch()
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", None, 2)
            config.progress_monitor.phase_start("Timing graph nodes", "Building Engine", 1)
            config.progress_monitor.step_complete("Timing graph nodes", 0)
            config.progress_monitor.phase_finish("Timing graph nodes")
            config.progress_monitor.step_complete("Building Engine", 0)
        if _fails("hang", path):
            time.sleep(600)
        if _fails("killed", path):
            os.kill(os.getpid(), signal.SIGKILL)
        if _fails("crash", path):
            os.write(2, b"terminate called after throwing an instance of 'std::length_error'\n")
            os._exit(134)
        if _fails("bad_alloc", path):
            raise MemoryError("std::bad_alloc")
        if _fails("memory", path):
            self._logger.log(
                ILogger.ERROR,
                "[defaultAllocator.cpp] Requested amount of GPU memory (8589934592 bytes)"
                " could not be allocated. There may not be enough free memory for allocation to succeed.",
            )
            return None
        if _fails("null", path):
            self._logger.log(ILogger.ERROR, "Error Code 10: Could not find any implementation for node ForeignNode")
            return None
        self._logger.log(ILogger.WARNING, "a warning of the builder")
        if config.cache is not None:
            config.cache = _TimingCache(f"{__version__} {len(config.cache.content)}".encode())
        header = {
            "version": __version__,
            "file": Path(path).name,
            "flags": sorted(config.flags),
            "profiles": [p.shapes for p in config.profiles],
            "outputs": [tensor.name for tensor in network._outputs],
            "workspace": config.workspace,
        }
        return json.dumps(header).encode() + b"\n" + Path(path).read_bytes()


def _fails(what, path):
    return _PLAN.get("fail") == what and any(p in Path(path).name for p in _PLAN.get("precisions", [""]))


for _name in _PLAN.get("lacks", ()):
    del globals()[_name]
