"""scikit-learn's heads from .skops files: a zip of ``schema.json`` and .npy arrays.

The file is read as data. skops itself would build scikit-learn's objects, of the version that saved them, from
classes that the file names; here nothing that the file names is ever imported, and neither library is needed.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass_export.activations import parse_activation
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.heads import HeadParts, LinearLayer, Scaler, Step, two_classes, with_activation

_CLASSIFIERS = ("LogisticRegression", "LogisticRegressionCV", "MLPClassifier")
_MOST_BYTES = 1 << 28


def read_skops(path: Path) -> HeadParts:
    """A LogisticRegression or MLPClassifier, alone or in a Pipeline behind a StandardScaler.

    Raises ``UsageError`` where the file cannot be read and ``CheckpointError`` where it holds something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise CheckpointError(f"{path}: more than {_MOST_BYTES >> 20} MB unpacked, expected a head")
            return _head(path, _Node(archive, json.loads(archive.read("schema.json"))))
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, RecursionError, EOFError) as error:
        raise CheckpointError(f"{path}: no skops file, or damaged: {type(error).__name__}: {error}") from error


class _Node:
    """One node of the schema: a value, or an object with attributes."""

    def __init__(self, archive: zipfile.ZipFile, plain: dict[str, Any]) -> None:
        self._archive, self._plain = archive, plain
        self.kind: str = plain["__class__"]

    def __contains__(self, name: str) -> bool:
        return name in self._plain["content"]["content"]

    def __getitem__(self, name: str) -> _Node:
        return _Node(self._archive, self._plain["content"]["content"][name])

    def items(self) -> list[_Node]:
        """The members of a list or tuple, or of an array of objects."""
        return [_Node(self._archive, plain) for plain in self._plain["content"]]

    def value(self) -> Any:
        """A number, text, true, false or None."""
        return json.loads(self._plain["content"]) if self._plain["__loader__"] == "JsonNode" else self._plain["content"]

    def array(self) -> NDArray[Any]:
        """An array of numbers or text."""
        if self._plain.get("type") == "json":
            return np.array([node.value() for node in self.items()])
        content = self._archive.read(self._plain["file"])
        array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        return array

    def numbers(self) -> NDArray[np.float64]:
        numbers = self.array().astype(np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError("an array holds NaN or infinity")
        return numbers


def _head(path: Path, root: _Node) -> HeadParts:
    parts = [step.items()[1] for step in root["steps"].items()] if root.kind == "Pipeline" else [root]
    kinds = [part.kind for part in parts]
    known = kinds[-1:] if len(kinds) == 1 else ["StandardScaler", *kinds[-1:]]
    if kinds != known or kinds[-1] not in _CLASSIFIERS:
        raise CheckpointError(
            f"{path}: it holds {' → '.join(kinds)}; expected {', '.join(_CLASSIFIERS)}, alone or behind a"
            " StandardScaler"
        )
    model = parts[-1]
    steps = _network(model) if model.kind == "MLPClassifier" else _logistic(path, model)
    width = steps[0].kernel.shape[0] if isinstance(steps[0], LinearLayer) else 0
    genres = tuple(map(str, model["classes_"].array().ravel()))
    return HeadParts(tuple(two_classes(steps)), _scaler(parts[0], width) if len(parts) > 1 else None, genres)


def _logistic(path: Path, model: _Node) -> list[Step]:
    kernel = model["coef_"].numbers().T
    one_by_one = model["solver"].value() == "liblinear" or (
        "multi_class" in model and model["multi_class"].value() == "ovr"
    )
    if one_by_one and kernel.shape[1] > 1:
        raise CheckpointError(
            f"{path}: its classes were fitted one against the rest, so its probabilities are no softmax; fit it with"
            " solver='lbfgs'"
        )
    return [LinearLayer(kernel, np.zeros(kernel.shape[1]) + model["intercept_"].numbers())]


def _network(model: _Node) -> list[Step]:
    kernels = [node.numbers() for node in model["coefs_"].items()]
    biases = [node.numbers() for node in model["intercepts_"].items()]
    layers = [LinearLayer(kernel, bias) for kernel, bias in zip(kernels, biases, strict=True)]
    return with_activation(layers, parse_activation(str(model["activation"].value())))


def _scaler(node: _Node, width: int) -> Scaler:
    """with_mean=False and with_std=False leave mean and scale out."""
    mean = node["mean_"].numbers() if node["with_mean"].value() else np.zeros(width)
    scale = node["scale_"].numbers() if node["with_std"].value() else np.ones(width)
    return Scaler(mean, scale)
