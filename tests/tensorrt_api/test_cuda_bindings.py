"""Every name of cuda-bindings that is used here exists in the oldest and the newest version, and gives what is read."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge_reclass.backends.tensorrt.memory import cuda_bindings
from edge_reclass.backends.tensorrt.memory.base import DEVICE_LOST, OUT_OF_MEMORY
from edge_reclass.errors import DeviceError
from edge_reclass.host.gpu import probe_gpu
from tensorrt_api.bindings import CUDA_BINDINGS, Unavailable, fetch_wheel, run_python

LIST = """
import json, sys
from cuda.bindings import runtime
import cuda.bindings
names = json.loads(sys.argv[1])
def look(path):
    thing = runtime
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return [thing is not None, str(getattr(thing, "__doc__", ""))]
print(json.dumps({"version": cuda.bindings.__version__, "found": {name: look(name) for name in names}}))
"""

OPEN = """
from edge_reclass.backends.tensorrt.memory import open_cuda_memory
from edge_reclass.errors import DeviceError
try:
    open_cuda_memory({"EDGE_RECLASS_CUDA_MEMORY": "cuda-bindings"})
except DeviceError as error:
    print(error)
"""

STATUSES = """
import json
from cuda.bindings import runtime as r
calls = {"cudaSetDevice": (0,), "cudaMalloc": (1,), "cudaHostAlloc": (1, 0), "cudaEventCreate": (),
         "cudaStreamCreateWithFlags": (1,), "cudaGetDeviceCount": ()}
print(json.dumps({name: [len(got), got[0].name] for name, a in calls.items() for got in [getattr(r, name)(*a)]}))
"""


def used() -> tuple[dict[str, list[int]], set[str], set[str]]:
    """Functions and the numbers of their arguments, those whose value is read, and all other names; from the source."""
    tree = ast.parse(Path(cuda_bindings.__file__).read_text(encoding="utf-8"))
    functions = {name: [1] for name in cuda_bindings._FREE.values()}
    others: set[str] = set()
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    read: set[str] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "self._call"
            and isinstance(node.args[0], ast.Constant)
        ):
            name = ast.literal_eval(node.args[0])
            functions.setdefault(name, []).append(len(node.args) - 1)
            if id(node) not in statements:
                read.add(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("self._cudart."):
            functions.setdefault(ast.unparse(node.func).removeprefix("self._cudart."), []).append(len(node.args))
        if isinstance(node, ast.Attribute) and (match := re.fullmatch(r"(?:self\._)?cudart\.(.+)", ast.unparse(node))):
            others.add(match[1])
    return functions, read, others - set(functions)


@pytest.fixture(scope="module", params=CUDA_BINDINGS)
def folder(request: pytest.FixtureRequest) -> Path:
    try:
        return fetch_wheel(request.param, request.config.cache.mkdir("cuda_bindings"))
    except Unavailable as error:
        pytest.skip(f"{request.param} cannot be had here: {error}")


def look_up(folder: Path, names: set[str]) -> dict[str, tuple[bool, str]]:
    found: dict[str, Any] = json.loads(run_python(folder, LIST, json.dumps(sorted(names))))
    assert f"cuda-bindings-{found['version']}-" in folder.name
    return {name: (exists, text) for name, (exists, text) in found["found"].items()}


def test_the_source_is_understood() -> None:
    functions, read, others = used()
    assert {"cudaMalloc", "cudaFree", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaGetErrorString"} <= set(functions)
    assert len(functions) > 20 and functions["cudaMemcpyAsync"] == [5, 5]
    assert {"cudaMalloc", "cudaHostAlloc", "cudaGraphInstantiate", "cudaEventElapsedTime"} <= read
    assert "cudaFree" not in read
    assert {"cudaError_t.cudaSuccess", "cudaHostAllocMapped", "cudaStreamNonBlocking"} <= others


def test_functions_exist_and_take_as_many_arguments(folder: Path) -> None:
    functions, read, _ = used()
    found = look_up(folder, set(functions))
    for name, counts in functions.items():
        exists, text = found[name]
        assert exists, name
        signature = re.match(rf"\s*{name}\((.*?)\)", text)
        assert signature is not None, text[:200]
        parameters = [each for each in signature[1].split(",") if each.strip()]
        assert set(counts) == {len(parameters)}, f"{name}{signature[0]}: {counts}"
        # numpy's docstrings: the status first, then each value that is given
        gives = re.findall(r"^\s*(\w+) : ", text.partition("Returns\n")[2].partition("See Also")[0], re.MULTILINE)
        assert bool(gives) or name not in read, f"{name} gives no value"
        assert len(gives) <= 1, f"{name} gives {gives}"


def test_other_names_exist(folder: Path) -> None:
    *_, others = used()
    found = look_up(folder, others)
    assert [name for name, (exists, _) in found.items() if not exists] == []


def test_a_name_that_is_not_there_would_be_missed(folder: Path) -> None:
    found = look_up(folder, {"cudaMallocNothing", "cudaMemcpyKind.cudaMemcpySideways", "cudaMalloc"})
    assert [name for name, (exists, _) in found.items() if exists] == ["cudaMalloc"]


def test_statuses_that_mean_something_exist(folder: Path) -> None:
    """A name that is misspelt here would make a lost device look like a bad file. The oldest lacks a few new ones."""
    found = look_up(folder, {f"cudaError_t.{name}" for name in (*DEVICE_LOST, OUT_OF_MEMORY)})
    lacking = {name.removeprefix("cudaError_t.") for name, (exists, _) in found.items() if not exists}
    assert lacking <= {"cudaErrorContained", "cudaErrorTensorMemoryLeak"} if "12.8" in folder.name else not lacking


@pytest.fixture
def no_driver() -> None:
    try:
        probe_gpu()
    except DeviceError:
        return
    pytest.skip("this machine has a GPU; what a machine without one says cannot be seen here")


def test_without_a_driver_opening_names_cudas_error(folder: Path, no_driver: None) -> None:
    said = run_python(folder, OPEN)
    assert said.startswith("cudaGetDeviceCount: cudaErrorInsufficientDriver (")


def test_a_failure_gives_status_and_none(folder: Path, no_driver: None) -> None:
    if "12.8" in folder.name:
        pytest.skip("12.8 raises RuntimeError without a driver, which the test above covers")
    assert json.loads(run_python(folder, STATUSES)) == {
        name: [length, "cudaErrorInsufficientDriver"]
        for name, length in {
            "cudaSetDevice": 1,
            "cudaMalloc": 2,
            "cudaHostAlloc": 2,
            "cudaEventCreate": 2,
            "cudaStreamCreateWithFlags": 2,
            "cudaGetDeviceCount": 2,
        }.items()
    }
