"""Which names of TensorRT's API the exporter uses, read from its source, so that the list cannot go stale.

All calls into the builder stand in ``engine/worker.py``. Each of its variables that holds a TensorRT object is listed
in ``OWNERS``; every other name whose attributes are used has to be in ``PLAIN``. A name in neither fails the test.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from edge_reclass_export.engine import worker

OWNERS = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "tensor": "ITensor",
    "fault": "ParserError",
}
PLAIN = {
    "capabilities",  # a pybind11 enum: its __members__
    *("json", "os", "re", "signal", "sys", "time", "warnings", "ctypes"),
    *("_MEMORY", "self", "error", "problem", "file", "path", "stream", "sm", "member"),
    *("problems", "inputs", "outputs", "names", "found", "known"),
}
RTX_ONLY = {"_set_compute_capability"}
"""Functions that are called for TensorRT-RTX only."""


@dataclass
class Used:
    """Owner class → attribute → the numbers of positional arguments of its calls; ``asked_for`` with getattr."""

    everywhere: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    rtx_only: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    asked_for: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def used_names(source: str | None = None) -> Used:
    """What ``source`` (by default worker.py) uses."""
    tree = ast.parse(Path(worker.__file__).read_text(encoding="utf-8") if source is None else source)
    used = Used()
    for function in tree.body:
        rtx = isinstance(function, ast.FunctionDef) and function.name in RTX_ONLY
        _collect(function, used, used.rtx_only if rtx else used.everywhere)
    return used


def _collect(tree: ast.AST, used: Used, into: dict[str, dict[str, list[int]]]) -> None:
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
        if chain is None:
            if _root(node) in OWNERS:
                used.unknown.add(ast.unparse(node) + ": give the value before the dot a name of its own")
        elif chain[0] in OWNERS and id(node) not in inner:
            owner = ".".join(part for part in (OWNERS[chain[0]], *chain[1:-1]) if part)
            counts = into.setdefault(owner, {}).setdefault(chain[-1], [])
            call = calls.get(id(node))
            if call is not None and not call.keywords and not any(isinstance(a, ast.Starred) for a in call.args):
                counts.append(len(call.args))
        elif chain[0] not in OWNERS and chain[0] not in PLAIN:
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
