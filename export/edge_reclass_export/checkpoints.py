"""Checkpoints, read without running anything that stands in them.

safetensors files, and torch files through ``weights_only=True``: of a pickle, only tensors, plain containers,
numbers, text and (allow-listed here) numpy arrays are ever built. A pickle that wants more is refused by the
name of what it wants. Zip archives and safetensors stay mapped into memory, so that of a large file only the
tensors that a recipe takes are ever copied.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from edge_reclass.bundle import file_entry
from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts put the state dict, in the order in which they are looked for."""

INDEX_SUFFIX = ".index.json"
"""Ends the name of the file that says which of several files holds which tensor."""

FAIRSEQ = (
    "a fairseq checkpoint, whose tensors have other names and whose pickle wants fairseq's classes; take the"
    " pytorch_model.bin or model.safetensors that the hub has beside it, or convert it with the authors' script"
    " (yizhilll/MERT, scripts/mert_hf)"
)

_SHOWN = 5
_ZIP_MAGIC = b"PK\x03\x04"
_GLOBAL = re.compile(r"(?:GLOBAL|class|function) '?([\w.]+)")
_NOT_THE_MODEL = re.compile(r"optim|sched|scaler|ema|average|callbacks|loops", re.I)
_FAIRSEQ_NAMES = re.compile(r"fairseq|omegaconf|argparse\.Namespace")
_MOST_INDEX_BYTES = 1 << 24


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. Every method gives a new one or plain data; nothing is changed in place.

    ``tensors`` are as stored (any dtype, perhaps mapped from the file). ``extras`` is everything that stood
    beside the state dict: a torch file's other keys, a safetensors file's metadata. ``outside`` are the names
    that ``under`` left out. ``prefix`` is what ``under`` took away.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, torch.Tensor]
    extras: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    outside: tuple[str, ...] = ()

    def under(self, anchor: str) -> Checkpoint:
        """Only the tensors of the module that holds ``anchor``, with its prefix (perhaps none) taken away.

        Where several prefixes hold it (an exponential average beside the model), the shortest is taken. Raises
        ``CheckpointError`` where none does.
        """
        prefixes = {name.removesuffix(anchor) for name in self.tensors if name == anchor or name.endswith("." + anchor)}
        if not prefixes:
            raise CheckpointError(
                f"{self.path}: no tensor {anchor!r}, under whatever prefix: not a checkpoint of this architecture;"
                f" it has {some(self.tensors)}"
            )
        prefix = min(prefixes, key=lambda text: (len(text), text))
        inside = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        outside = tuple(name for name in self.tensors if not name.startswith(prefix))
        return replace(self, tensors=inside, prefix=prefix, outside=outside)

    def renamed(self, patterns: Mapping[str, str]) -> Checkpoint:
        """Tensors under other names: each key is a regular expression, each value its replacement.

        Raises ``CheckpointError`` where two tensors would get one name.
        """
        tensors: dict[str, torch.Tensor] = {}
        for old, value in self.tensors.items():
            new = old
            for pattern, replacement in patterns.items():
                new = re.sub(pattern, replacement, new)
            if new in tensors:
                raise CheckpointError(f"{self.path}: two tensors are {new!r}, one of them is called {old!r}")
            tensors[new] = value
        return replace(self, tensors=tensors)

    def shape(self, name: str, dims: int | None = None) -> tuple[int, ...]:
        """Shape of one tensor. Raises ``CheckpointError`` where there is none, or it has not ``dims`` dimensions."""
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: no tensor {self.prefix + name!r}; it has {some(self.tensors)}")
        shape = tuple(self.tensors[name].shape)
        if dims is not None and len(shape) != dims:
            raise CheckpointError(
                f"{self.path}: {self.prefix + name}: expected {dims} dimensions, got the shape {list(shape)}"
            )
        return shape

    def count(self, pattern: str) -> int:
        """How many numbers N = 0, 1, 2, … the tensors' names have at ``{}`` in ``pattern``, e.g. ``layers.{}.``.

        Raises ``CheckpointError`` where there is a gap.
        """
        before, _, after = pattern.partition("{}")
        found = {
            int(match[1])
            for name in self.tensors
            if (match := re.match(re.escape(before) + r"(\d+)" + re.escape(after), name))
        }
        if missing := sorted(set(range(max(found, default=-1) + 1)) - found):
            raise CheckpointError(
                f"{self.path}: {pattern.format('N')}*: the highest N is {max(found)},"
                f" but {', '.join(map(str, missing))} is missing"
            )
        return len(found)

    def take(
        self, shapes: Mapping[str, Sequence[int]], *, ignore: Iterable[str] = (), optional: Iterable[str] = ()
    ) -> dict[str, torch.Tensor]:
        """Exactly the tensors of ``shapes``, as float32, finite, in ``shapes``'s order.

        ``ignore``: patterns (``fnmatch``) of names that may stand beside them. ``optional``: names that may be
        missing, and are then not in the result. Raises ``CheckpointError`` with everything that is missing,
        unexpected or of another shape, or with the first tensor that holds no finite numbers.
        """
        may_miss, may_be = set(optional), tuple(ignore)
        problems = []
        missing = [name for name in shapes if name not in self.tensors and name not in may_miss]
        if missing:
            problems.append(f"{len(missing)} of {len(shapes)} tensors are missing: {some(missing)}")
        unexpected = [
            name for name in self.tensors if name not in shapes and not any(fnmatchcase(name, p) for p in may_be)
        ]
        if unexpected:
            problems.append(f"{len(unexpected)} tensors are not expected: {some(unexpected)}")
        wrong = [
            f"{name} expected {list(shape)}, got {list(self.tensors[name].shape)}"
            for name, shape in shapes.items()
            if name in self.tensors and tuple(self.tensors[name].shape) != tuple(shape)
        ]
        if wrong:
            problems.append(f"{len(wrong)} tensors have another shape: {some(wrong, '; ')}")
        if problems:
            raise CheckpointError(f"{self.path}: " + "; ".join(problems))
        return {name: self._float32(name) for name in shapes if name in self.tensors}

    def _float32(self, name: str) -> torch.Tensor:
        stored = self.tensors[name]
        if not stored.dtype.is_floating_point:
            raise CheckpointError(f"{self.path}: {self.prefix + name}: expected floating point, got {stored.dtype}")
        tensor = stored.detach().to(torch.float32).contiguous()
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{self.path}: {self.prefix + name} holds NaN or infinity")
        return tensor

    @property
    def stored_dtypes(self) -> tuple[str, ...]:
        """The dtypes of the tensors as stored, e.g. ``("float16",)``."""
        return tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in self.tensors.values()}))


def load_state(path: Path, *, wrappers: Sequence[str] = WRAPPERS) -> Checkpoint:
    """Reads a checkpoint: safetensors by its content or name, an index of several files, else a torch file.

    The state dict may be the whole file, stand under one of ``wrappers``, or be the only dict with tensors in it; the
    other keys become ``extras``. Of several files, ``sha256`` is that of their names and checksums.

    Raises:
        UsageError: the file cannot be opened.
        CheckpointError: it is empty, truncated, damaged, no checkpoint at all, or a pickle that wants to build
            something else than data; the message names it.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _load_shards(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
        digest = file_entry(path).sha256
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path}: the file is empty")
    if path.suffix.lower() == ".safetensors" or _is_safetensors(start):
        tensors, extras = _read_safetensors(path)
    else:
        tensors, extras = _state_dict(path, _read_torch(path, start), wrappers)
    return Checkpoint(path, digest, tensors, extras)


def _load_shards(index: Path) -> Checkpoint:
    """The tensors of all files that an index names; each lies beside it, and has exactly the tensors that it should."""
    try:
        if index.stat().st_size > _MOST_INDEX_BYTES:
            raise CheckpointError(f"{index}: larger than {_MOST_INDEX_BYTES >> 20} MB, no index")
        plain = json.loads(index.read_bytes())
        placed: dict[str, str] = dict(plain["weight_map"])
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {index}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{index}: no index: expected a weight_map from tensors to files") from error
    tensors: dict[str, torch.Tensor] = {}
    digest = hashlib.sha256()
    for file in sorted(set(map(str, placed.values()))):
        if file != Path(file).name or file in {"", ".", ".."} or "\\" in file or file.endswith(INDEX_SUFFIX):
            raise CheckpointError(f"{index}: names the file {file!r}, expected one that lies beside it")
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index}: the file {file} is missing; all files of the checkpoint are needed")
        shard = load_state(index.parent / file)
        expected = {name for name, place in placed.items() if place == file}
        if set(shard.tensors) != expected:
            raise CheckpointError(
                f"{index.parent / file}: its tensors are not those of {index.name}:"
                f" {some(sorted(expected ^ set(shard.tensors)))}"
            )
        tensors |= shard.tensors
        digest.update(f"{file} {shard.sha256}\n".encode())
    return Checkpoint(index, digest.hexdigest(), tensors)


def some(names: Iterable[str], separator: str = ", ") -> str:
    """The first few of ``names``, and how many more there are."""
    listed = list(names)
    shown = separator.join(listed[:_SHOWN]) or "nothing"
    return shown if len(listed) <= _SHOWN else f"{shown}{separator}and {len(listed) - _SHOWN} more"


def _is_safetensors(start: bytes) -> bool:
    """The header's length as 8 bytes, little-endian, then its JSON."""
    return len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {_safetensors_fault(path)}: {error}") from error


def _safetensors_fault(path: Path) -> str:
    """Truncated, if the header is whole and promises more bytes than there are."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "is damaged or no safetensors file"
    expected = 8 + length + int(end)
    if len(content) < expected:
        return f"is truncated: expected {expected} bytes, got {len(content)}"
    return "is damaged"


def _read_torch(path: Path, start: bytes) -> object:
    archive = zipfile.is_zipfile(path)
    if start.startswith(_ZIP_MAGIC) and not archive:
        raise CheckpointError(f"{path}: is truncated: a torch archive whose end is missing")
    if archive:
        _check_archive(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_globals()):
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript; both end in the errors below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except MemoryError:
        raise
    except Exception as error:  # torch raises a dozen unrelated classes for a bad file
        raise CheckpointError(f"{path}: {_why(error)}") from error


def _check_archive(path: Path) -> None:
    """Compare the archive's checksums, which torch itself does not read."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: is damaged: the checksum of {damaged} does not match")


def _why(error: Exception) -> str:
    text = str(error)
    if "TorchScript" in text:
        return "is a TorchScript program; expected a state dict (torch.save(model.state_dict(), …))"
    if "weights_only" in text or "Weights only" in text:
        if match := _GLOBAL.search(text):
            if _FAIRSEQ_NAMES.search(match[1]):
                return FAIRSEQ
            return (
                f"refused: its pickle wants {match[1]}, and loading that could run code;"
                " expected tensors, numpy arrays and plain data only. Save the state dict alone, best as safetensors"
            )
        return "is no torch checkpoint: a pickle of another kind, or damaged"
    detail = (text.splitlines() or [""])[0]
    return f"is truncated, damaged or no torch checkpoint ({type(error).__name__}: {detail})"


def _state_dict(path: Path, loaded: object, wrappers: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors, and what stands beside them on the way there."""
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a state dict, got {_kind(loaded)}")
    extras: dict[str, Any] = {}
    inside: dict[Any, Any] = loaded
    while (key := _inner(path, inside, wrappers)) is not None:
        extras |= {str(name): value for name, value in inside.items() if name != key}
        inside = inside[key]
    tensors = _tensors(inside)
    if not tensors:
        raise CheckpointError(
            f"{path}: no state dict: expected tensors, or one of the keys {', '.join(wrappers)};"
            f" it has {some(map(str, inside))}"
        )
    if any(name.startswith("post_extract_proj.") for name in tensors):
        raise CheckpointError(f"{path}: {FAIRSEQ}")
    return tensors, extras | {str(name): value for name, value in inside.items() if name not in tensors}


def _inner(path: Path, loaded: Mapping[Any, Any], wrappers: Sequence[str]) -> Any:
    """The key under which the state dict stands, or None where ``loaded`` is it.

    A wrapper's name goes first. Where no weight lies beside it, the only other dict that holds tensors is taken.
    """
    for key in wrappers:
        if isinstance(loaded.get(key), dict) and _holds_tensors(loaded[key]):
            return key
    if any(name.rpartition(".")[2] == "weight" for name in _tensors(loaded)):
        return None
    holding = [key for key, value in loaded.items() if isinstance(value, dict) and _holds_tensors(value)]
    holding = [key for key in holding if not _NOT_THE_MODEL.search(str(key))] or holding
    if len(holding) > 1:
        raise CheckpointError(
            f"{path}: several state dicts: {', '.join(map(str, holding))}; save the one that is meant alone"
        )
    return holding[0] if holding else None


def _holds_tensors(values: Mapping[Any, Any]) -> bool:
    return bool(_tensors(values)) or any(isinstance(value, dict) and _tensors(value) for value in values.values())


def _tensors(values: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """The tensors among ``values``, parameters without their gradients."""
    return {
        name: value.detach()
        for name, value in values.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _kind(value: object) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _numpy_globals() -> list[Any]:
    """What the pickle of a numpy array or scalar of numbers or text names, under numpy 1's and numpy 2's names.

    Rebuilding an array from shape, dtype and bytes runs no code of the file's. The dtype of Python objects is
    left out.
    """
    core = importlib.import_module("numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core")
    allowed: list[Any] = [np.ndarray, np.dtype]
    for function in ("_reconstruct", "scalar"):
        found = getattr(core.multiarray, function)
        allowed += [(found, f"{package}.multiarray.{function}") for package in ("numpy.core", "numpy._core")]
    allowed += list(dict.fromkeys(type(np.dtype(code)) for code in "?bhilqBHILQefdUS"))
    return allowed
