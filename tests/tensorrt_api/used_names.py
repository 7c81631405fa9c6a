"""Which names of TensorRT's API the exporter and the runtime use, read from their source, so that no list goes stale.

All calls into the builder stand in ``engine/worker.py``, all calls into the runtime in ``backends/tensorrt/api.py``.
Each variable there that holds a TensorRT object is one of a :class:`Vocabulary`'s ``owners``; every other name whose
attributes are used has to be in its ``plain``. A name in neither fails the test.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from edge_reclass.backends.tensorrt import api as tensorrt_api
from edge_reclass_export.engine import worker


@dataclass(frozen=True)
class Vocabulary:
    """Variables that hold TensorRT objects, by their class; other names with attributes; an attribute to look through.

    ``through`` is the attribute of a holder whose value is the TensorRT object itself.
    """

    owners: dict[str, str]
    plain: frozenset[str]
    through: str | None = None


BUILDER = Vocabulary(
    {
        "trt": "",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
        "tensor": "ITensor",
        "fault": "ParserError",
    },
    frozenset(
        {
            "capabilities",  # a pybind11 enum: its __members__
            *("json", "os", "re", "signal", "sys", "time", "warnings", "ctypes"),
            *("_MEMORY", "self", "error", "problem", "file", "path", "stream", "sm", "member"),
            *("problems", "inputs", "outputs", "names", "found", "known"),
        }
    ),
)
RUNTIME = Vocabulary(
    {"trt": "", "runtime": "Runtime", "engine": "ICudaEngine", "context": "IExecutionContext"},
    frozenset(
        {
            "api",  # the module before it is known to be TensorRT: its __version__
            *("re", "self", "text", "log", "library", "source", "target", "reasons"),
            *("_MEMORY", "TENSORRT_MODULES", "addresses", "found", "wanted"),
        }
    ),
    through="it",
)
RTX_ONLY = {"_set_compute_capability"}
"""Functions that are called for TensorRT-RTX only."""


@dataclass
class Used:
    """Owner class → attribute → the numbers of positional arguments of its calls; ``asked_for`` with getattr."""

    everywhere: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    rtx_only: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    asked_for: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def used_names(source: str | None = None, words: Vocabulary = BUILDER) -> Used:
    """What ``source`` (by default worker.py) uses."""
    tree = ast.parse(Path(worker.__file__).read_text(encoding="utf-8") if source is None else source)
    used = Used()
    for function in tree.body:
        rtx = isinstance(function, ast.FunctionDef) and function.name in RTX_ONLY
        _collect(function, words, used, used.rtx_only if rtx else used.everywhere)
    return used


def runtime_names(source: str | None = None) -> Used:
    """What ``source`` (by default tensorrt/api.py) uses."""
    return used_names(Path(tensorrt_api.__file__).read_text(encoding="utf-8") if source is None else source, RUNTIME)


def _collect(tree: ast.AST, words: Vocabulary, used: Used, into: dict[str, dict[str, list[int]]]) -> None:
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            owner, name = node.args[:2]
            if isinstance(owner, ast.Name) and owner.id == "trt" and isinstance(name, ast.Constant):
                used.asked_for.add(str(name.value))
        if not isinstance(node, ast.Attribute):
            continue
        chain = _chain(node)
        if chain is not None and chain[0] in words.owners and words.through in chain[1:2]:
            del chain[1]
            if len(chain) == 1:
                continue
        if chain is None:
            if _root(node) in words.owners:
                used.unknown.add(ast.unparse(node) + ": give the value before the dot a name of its own")
        elif chain[0] in words.owners and id(node) not in inner:
            owner = ".".join(part for part in (words.owners[chain[0]], *chain[1:-1]) if part)
            counts = into.setdefault(owner, {}).setdefault(chain[-1], [])
            call = calls.get(id(node))
            if call is not None and not call.keywords and not any(isinstance(a, ast.Starred) for a in call.args):
                counts.append(len(call.args))
        elif chain[0] not in words.owners and chain[0] not in words.plain:
            used.unknown.add(chain[0])


def _chain(node: ast.expr) -> list[str] | None:
    """``a.b.c`` as its names; None where something else than names stands in it."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def _root(node: ast.expr) -> str | None:
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return None
    return node.id
