"""Where a checkpoint's weights lie: in a directory, as one file of it, or in a model's folder of the hub's cache."""

from __future__ import annotations

from pathlib import Path

from edge_reclass.errors import UsageError
from edge_reclass_export.checkpoints import FAIRSEQ, INDEX_SUFFIX, some
from edge_reclass_export.errors import CheckpointError

FILE_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    f"model.safetensors{INDEX_SUFFIX}",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
"""What the weights of a checkpoint directory are called; the first that is there is read."""

_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt", ".ckpt"}
_CONFIG = "config.json"


def checkpoint_in(place: Path) -> Path:
    """The file with the weights: ``place`` itself, or the one in that directory, which has ``config.json`` beside it.

    Of a model's folder in the hub's cache (``models--OWNER--NAME``), the snapshot of ``refs/main`` is taken, or the
    only one. Raises ``UsageError`` where there is no such file or directory, and ``CheckpointError`` where no weights
    are in it, or several.
    """
    if place.is_file():
        if "fairseq" in place.name.lower():
            raise CheckpointError(f"{place}: {FAIRSEQ}")
        return place
    if not place.is_dir():
        raise UsageError(
            f"{place}: expected a checkpoint directory with {_CONFIG} and {' or '.join(FILE_NAMES[:2])}, or the file"
            " with the weights in one"
        )
    folder = _snapshot(place) if (place / "snapshots").is_dir() else place
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    of_fairseq = [file for file in found if "fairseq" in file.name.lower()]
    others = [file for file in found if file not in of_fairseq]
    if len(others) == 1:
        return others[0]
    if others:
        raise CheckpointError(
            f"{folder}: several files may hold the weights: {some(file.name for file in others)}; give one of them"
        )
    if of_fairseq:
        raise CheckpointError(f"{of_fairseq[0]}: {FAIRSEQ}")
    listing = some(sorted(entry.name for entry in folder.iterdir()))
    raise CheckpointError(f"{folder}: neither {' nor '.join(FILE_NAMES[:2])} is there; it has {listing}")


def _snapshot(model: Path) -> Path:
    snapshots = sorted(folder for folder in (model / "snapshots").iterdir() if folder.is_dir())
    try:
        wanted = (model / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        wanted = ""
    for folder in snapshots:
        if folder.name == wanted or (not wanted and len(snapshots) == 1):
            return folder
    names = some(folder.name for folder in snapshots)
    raise CheckpointError(
        f"{model}: refs/main names the snapshot {wanted or 'none'!r}, snapshots has {names}; give one of these folders"
    )
