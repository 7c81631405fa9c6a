"""Graphs without weights: taken out by a rule on one machine, filled by the same rule, bit for bit, on another.

An archive holds a bundle whose large tensors have no data; the tensor's ``doc_string`` says of which weights it is made
(``{"of": NAME, "transposed": …, "factor": …}``), ``tensors.json`` what shape and deviation these have. A weight's
numbers come from PCG64's raw stream, which numpy promises not to change, seeded with its name, and uniform: no
logarithm or cosine that two processors round differently.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from math import prod, sqrt
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_reclass.bundle import MANIFEST, content_entry, load, manifest_text

TENSORS = "tensors.json"
LARGE = 256
"""Tensors of fewer values keep theirs: scales, shapes, biases."""

Tensors = Mapping[str, tuple[Sequence[int], float]]
"""Name of a weight → its shape and deviation."""


def weight(name: str, shape: Sequence[int], deviation: float) -> NDArray[np.float32]:
    """The untrained weight of this name: float32[shape], uniform around 0."""
    count = prod(shape)
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw((count + 1) // 2).view(np.uint32)[:count] >> 8
    values = bits.astype(np.float32)
    values *= np.float32(2.0**-24)
    values -= np.float32(0.5)
    values *= np.float32(sqrt(12.0) * deviation)
    return values.reshape(tuple(shape))


def empty(model: onnx.ModelProto, known: Mapping[bytes, dict[str, Any]]) -> list[str]:
    """Take the data out of every tensor of ``model`` that ``known`` explains, in place; gives the weights' names.

    ``known`` maps the bytes of a tensor, whatever its shape, to the rule that makes it.
    """
    used = []
    for tensor in model.graph.initializer:
        rule = known.get(tensor.raw_data) if prod(tensor.dims) >= LARGE else None
        if rule is not None:
            tensor.doc_string = json.dumps(rule)
            tensor.ClearField("raw_data")
            used.append(rule["of"])
    return used


def fill_model(model: onnx.ModelProto, tensors: Tensors) -> None:
    """Give every emptied tensor of ``model`` its data, in place."""
    for tensor in model.graph.initializer:
        if tensor.doc_string:
            rule = json.loads(tensor.doc_string)
            values = made(weight(rule["of"], *tensors[rule["of"]]), rule)
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.raw_data = values.astype(dtype).tobytes()
            tensor.ClearField("doc_string")


def made(values: NDArray[np.float32], rule: Mapping[str, Any]) -> NDArray[np.float32]:
    """What a graph makes of a weight before it is stored."""
    if rule.get("transposed"):
        values = np.ascontiguousarray(values.T)
    return values * np.float32(rule["factor"]) if "factor" in rule else values


def fill(archive: Path, folder: Path) -> list[str]:
    """The bundle of ``archive``, complete, as ``folder``, which appears whole or not at all; gives remarks.

    Every file must be what its manifest says. Where ONNX is written in another way here, the manifest follows, and that
    is the remark: the reference vectors say whether the numbers are right.

    Raises:
        BundleError: what was filled is no bundle.
        OSError, tarfile.TarError: the archive cannot be read, or the folder not be written.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(part, filter="data")
    tensors = tensors_of(part)
    manifest, remarks = load(part).manifest, []
    for name, entry in manifest.files.items():
        path = part / name
        if path.suffix == ".onnx":
            model = onnx.load(path)
            fill_model(model, tensors)
            path.write_bytes(model.SerializeToString())
            del model
        found = content_entry(path.read_bytes())
        if found != entry:
            remarks.append(f"{name} is not the file that was made where the graphs come from")
            manifest = msgspec.structs.replace(manifest, files={**manifest.files, name: found})
    (part / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    load(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return remarks


def tensors_of(folder: Path) -> Tensors:
    """What the weights of a bundle are made of."""
    found: dict[str, tuple[Sequence[int], float]] = json.loads((folder / TENSORS).read_text(encoding="utf-8"))
    return found


def bytes_of(values: NDArray[np.float32], dtype: Any) -> bytes:
    """How a graph stores them."""
    stored: bytes = numpy_helper.from_array(values.astype(dtype)).raw_data
    return stored
