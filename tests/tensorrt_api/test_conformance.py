"""Every name of TensorRT's API that is used here exists in the oldest and the newest version, and in RTX's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tensorrt_api.bindings import ALL, NEWEST, OLDEST, RTX, Bindings, Unavailable, fetch, run_python
from tensorrt_api.used_names import Used, runtime_names, used_names

LIST = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
def members(thing):
    return {name: str(getattr(getattr(thing, name, None), "__doc__", "")) for name in dir(thing)}
found = {"": members(module)}
found |= {name: members(getattr(module, name)) for name in dir(module) if isinstance(getattr(module, name), type)}
print(json.dumps({"version": module.__version__, "members": found}))
"""

SUBCLASSES = """
import importlib, sys
from edge_reclass_export.engine.worker import _logger, _monitor
trt = importlib.import_module(sys.argv[1])
problems, told = [], []
tell = lambda event, **values: told.append((event, values))
logger = _logger(trt, problems, tell)
logger.log(trt.ILogger.ERROR, "no")
logger.log(trt.ILogger.INFO, "quiet")
monitor = _monitor(trt, tell)
monitor.phase_start("Building", None, 4)
assert monitor.step_complete("Building", 0) is True
monitor.phase_finish("Building")
assert isinstance(logger, trt.ILogger) and isinstance(monitor, trt.IProgressMonitor)
assert problems == ["no"] and [event for event, _ in told] == ["log", "progress"], told
"""

RUNTIME_LOGGER = """
import importlib, sys
from edge_reclass.backends.tensorrt.api import make_runtime, open_library
from edge_reclass.errors import DeviceError
module = importlib.import_module(sys.argv[1])
flavour = "tensorrt-rtx" if "rtx" in sys.argv[1] else "tensorrt"
library = open_library(flavour, lambda name: module)
assert (library.flavour, library.version) == (flavour, module.__version__)
assert isinstance(library.logger, module.ILogger)
assert open_library(flavour, lambda name: module).logger is library.logger
library.logger.log(module.ILogger.INFO, "quiet")
library.logger.log(module.ILogger.ERROR, "the reason")
try:
    make_runtime(library)
except DeviceError as error:
    assert "cannot use the GPU: the reason" in str(error), error
else:
    # TensorRT-RTX makes a runtime without a driver, and fails when an engine is loaded.
    assert flavour == "tensorrt-rtx", "a runtime was made of nothing"
"""


@pytest.fixture(scope="module", params=ALL, ids=lambda bindings: bindings.requirement)
def bindings(request: pytest.FixtureRequest) -> tuple[Bindings, Path]:
    wanted: Bindings = request.param
    try:
        return wanted, fetch(wanted, request.config.cache.mkdir("tensorrt_bindings"))
    except Unavailable as error:
        pytest.skip(f"{wanted.requirement} cannot be had here: {error}")


@pytest.fixture(scope="module")
def api(bindings: tuple[Bindings, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_python(bindings[1], LIST, bindings[0].module))
    return found


def missing(members: dict[str, dict[str, str]], used: dict[str, dict[str, list[int]]]) -> list[str]:
    return [
        f"{owner}.{name}".lstrip(".")
        for owner, names in used.items()
        for name in names
        if name not in members.get(owner, {})
    ]


def test_the_source_is_understood() -> None:
    used = used_names()
    assert not used.unknown
    assert {"", "Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig", "ILogger"} <= set(used.everywhere)
    assert used.everywhere["NetworkDefinitionCreationFlag"] == {"STRONGLY_TYPED": []}
    assert used.everywhere["IOptimizationProfile"] == {"set_shape": [4]}
    assert sum(len(names) for names in used.everywhere.values()) > 25
    assert "set_compute_capability" in used.rtx_only["IBuilderConfig"]


def test_the_runtimes_source_is_understood() -> None:
    used = runtime_names()
    assert not used.unknown and not used.asked_for
    assert set(used.everywhere) >= {"", "Runtime", "ICudaEngine", "IExecutionContext", "TensorIOMode", "DataType"}
    assert used.everywhere["IExecutionContext"] == {
        "set_device_memory": [2],
        "set_tensor_address": [2],
        "set_input_shape": [2],
        "execute_async_v3": [1],
    }
    assert used.everywhere["ICudaEngine"]["create_execution_context"] == [1]
    assert used.everywhere["ExecutionContextAllocationStrategy"] == {"USER_MANAGED": []}
    assert used.everywhere["Runtime"] == {"deserialize_cuda_engine": [1]}
    assert len(used.everywhere["ICudaEngine"]) == 9


def test_a_new_name_in_the_runtime_is_seen() -> None:
    used = runtime_names(
        "def f(engine, thing):\n    engine.it.refit(1, 2)\n    thing.go()\n    engine.it.get().more()\n"
    )
    assert used.everywhere["ICudaEngine"]["refit"] == [2]
    assert "thing" in used.unknown and any("engine.it.get().more" in text for text in used.unknown)


def test_a_new_name_is_seen() -> None:
    used = used_names("def f(config, thing):\n    config.set_flag(1)\n    thing.go()\n    config.get().more()\n")
    assert used.everywhere["IBuilderConfig"]["set_flag"] == [1]
    assert "thing" in used.unknown and any("config.get().more" in text for text in used.unknown)


def test_the_runtimes_names_exist(api: dict[str, Any]) -> None:
    assert missing(api["members"], runtime_names().everywhere) == []


def test_names_exist(bindings: tuple[Bindings, Path], api: dict[str, Any]) -> None:
    used = used_names()
    assert api["version"] == bindings[0].version
    assert missing(api["members"], used.everywhere) == []
    if bindings[0] == RTX:
        members = api["members"]
        members["ComputeCapability"] |= {"__members__": ""}
        assert missing(members, used.rtx_only) == []
        assert used.asked_for <= set(members[""])


def test_a_name_that_is_gone_would_be_missed(bindings: tuple[Bindings, Path], api: dict[str, Any]) -> None:
    """The check can fail: TensorRT 11 has no FP16 flag, and 10 no compute capabilities to choose from."""
    gone = {
        OLDEST: {"": {"ComputeCapability": []}},
        NEWEST: {"BuilderFlag": {"FP16": []}},
        RTX: {"": {"init_plugins": []}},
    }
    assert len(missing(api["members"], gone[bindings[0]])) == 1


@pytest.mark.parametrize(("names", "at_least"), [(used_names(), 12), (runtime_names(), 10)], ids=["builder", "runtime"])
def test_calls_have_as_many_arguments_as_are_taken(api: dict[str, Any], names: Used, at_least: int) -> None:
    """pybind11 writes each signature into the docstring; of an overloaded function, one has to fit."""
    checked = 0
    for owner, members in names.everywhere.items():
        for name, counts in members.items():
            text = api["members"].get(owner, {}).get(name, "")
            signatures = re.findall(rf"(?:^|\d+\. ){name}\((self: .*?)\) -> ", text, re.MULTILINE)
            if not signatures or name == "__init__":  # called on the class, with self
                continue
            for count in counts:
                checked += 1
                assert any(takes(signature, count) for signature in signatures), f"{owner}.{name}: {count} arguments"
    assert checked >= at_least


def takes(signature: str, count: int) -> bool:
    parameters = re.split(r", (?=\w+: )", signature)[1:]
    least = sum(" = " not in parameter for parameter in parameters)
    return least <= count <= len(parameters)


def test_the_runtimes_logger_is_what_tensorrt_takes(bindings: tuple[Bindings, Path]) -> None:
    """For the null that the stub libraries give, the real bindings raise; that is no device."""
    run_python(bindings[1], RUNTIME_LOGGER, bindings[0].module)


def test_logger_and_monitor_are_what_tensorrt_takes(bindings: tuple[Bindings, Path]) -> None:
    run_python(bindings[1], SUBCLASSES, bindings[0].module)
