"""Every name of TensorRT's API that the exporter uses exists in the oldest and the newest version, and in RTX's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tensorrt_api.bindings import ALL, NEWEST, OLDEST, RTX, Bindings, Unavailable, environment, fetch
from tensorrt_api.used_names import used_names

LIST = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
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


def python(bindings: Bindings, folder: Path, code: str) -> str:
    command = [sys.executable, "-c", code, bindings.module]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment(bindings, folder)
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="module", params=ALL, ids=lambda bindings: bindings.requirement)
def bindings(request: pytest.FixtureRequest) -> tuple[Bindings, Path]:
    wanted: Bindings = request.param
    try:
        return wanted, fetch(wanted, request.config.cache.mkdir("tensorrt_bindings"))
    except Unavailable as error:
        pytest.skip(f"{wanted.requirement} cannot be had here: {error}")


@pytest.fixture(scope="module")
def api(bindings: tuple[Bindings, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(python(*bindings, LIST))
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


def test_a_new_name_is_seen() -> None:
    used = used_names("def f(config, thing):\n    config.set_flag(1)\n    thing.go()\n    config.get().more()\n")
    assert used.everywhere["IBuilderConfig"]["set_flag"] == [1]
    assert "thing" in used.unknown and any("config.get().more" in text for text in used.unknown)


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


def test_calls_have_as_many_arguments_as_are_taken(bindings: tuple[Bindings, Path], api: dict[str, Any]) -> None:
    """pybind11 writes each signature into the docstring."""
    checked = 0
    for owner, names in used_names().everywhere.items():
        for name, counts in names.items():
            text = api["members"].get(owner, {}).get(name, "")
            signature = re.match(rf"{name}\((self: .*?)\) -> ", text)
            if signature is None or name == "__init__":  # called on the class, with self
                continue
            parameters = re.split(r", (?=\w+: )", signature[1])[1:]
            least = sum(" = " not in parameter for parameter in parameters)
            for count in counts:
                checked += 1
                assert least <= count <= len(parameters), f"{owner}.{name}: {count} arguments, takes {signature[1]}"
    assert checked >= 12


def test_logger_and_monitor_are_what_tensorrt_takes(bindings: tuple[Bindings, Path]) -> None:
    python(*bindings, SUBCLASSES)
