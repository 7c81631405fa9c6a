"""What the project ships for starter plus: heads, temperatures and policies, and which weights they were fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml
from msgspec import Meta

from edge_reclass.bundle import PolicyEntry, file_entry, load, starter_path
from edge_reclass.errors import BundleError
from edge_reclass_export.errors import CheckpointError

FOLDER: Final = Path(__file__).parent
FILE: Final = "plus.yaml"
CARD: Final = "README.md"


class Extra(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An encoder beside the starter's.

    checkpoints: sha256 by file name, of the weights that the head was fitted on
    source, licence: where these are from, and under which terms
    options: arguments of the recipe's encoder function
    dim: width of the embedding that the head takes
    head, head_sha256: ONNX file in this folder
    loudness: every window is brought to it, in dB of full scale
    """

    checkpoints: dict[str, str]
    source: str
    licence: str
    options: dict[str, Any]
    dim: Annotated[int, Meta(ge=1)]
    head: str
    head_sha256: str
    loudness: float

    def check(self, stage: str, dim: int, name: str) -> None:
        """Whether the head takes what the checkpoint ``name`` gives.

        Raises:
            CheckpointError: it does not.
        """
        if dim != self.dim:
            raise CheckpointError(
                f"{name}: its embedding has {dim} values, the head of the stage {stage!r} takes {self.dim}: expected"
                f" {', '.join(self.checkpoints)} from {self.source}"
            )


class Combination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds for a bundle with some of the extras.

    temperatures: by stage, those of the starter's that change too
    policies: by name; the first is the default
    """

    temperatures: dict[str, Annotated[float, Meta(gt=0)]]
    policies: dict[str, PolicyEntry]


class Parts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``plus.yaml``.

    starter: digest of the heads that the policies were chosen with, see :func:`starter_digest`
    extras: by the stage's name
    combinations: by the names of the extra stages that are there, joined by ``+``
    """

    format: Literal[1]
    starter: str
    extras: dict[str, Extra]
    combinations: dict[str, Combination]


def read_parts(folder: Path = FOLDER) -> Parts:
    """The parts that this version of the project ships.

    Raises:
        BundleError: they belong to another starter than the embedded one, or are damaged.
    """
    try:
        parts = msgspec.convert(yaml.safe_load((folder / FILE).read_bytes()), Parts)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise BundleError(f"{folder / FILE}: {error}; install edge-reclass again") from error
    for extra in parts.extras.values():
        if not (head := folder / extra.head).is_file() or file_entry(head).sha256 != extra.head_sha256:
            raise BundleError(f"{head}: is not the head that {FILE} names; install edge-reclass again")
    if parts.starter != (found := starter_digest(starter_path())):
        raise BundleError(
            f"{folder / FILE}: made for a starter with heads {parts.starter[:12]}, the embedded one has {found[:12]};"
            " install edge-reclass again"
        )
    return parts


def starter_digest(root: Path) -> str:
    """sha256 over the sha256 of a starter's heads and encoders: what answers and embeddings depend on."""
    files = load(root).manifest.files
    told_by = sorted((file, entry.sha256) for file, entry in files.items() if file.startswith(("heads/", "encoders/")))
    return hashlib.sha256("".join(f"{file} {digest}\n" for file, digest in told_by).encode()).hexdigest()


def parts_text(parts: Parts) -> str:
    """``plus.yaml``."""
    plain = msgspec.to_builtins(parts)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None))


def combination(stages: Sequence[str]) -> str:
    """The key of ``combinations`` for these extra stages."""
    return "+".join(sorted(stages))
