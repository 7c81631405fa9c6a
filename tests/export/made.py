"""Tiny encoders as the recipes export them, each made once in a run of the tests: torch's exporter takes seconds.

What one worker of pytest-xdist has exported lies where the others find it.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from edge_reclass_export.exported import ExportedEncoder

TAGGER_WINDOWS = {"musicnn": 16_000, "fcn": 328_000, "crnn": 49_000}
"""About the shortest that each network takes."""


class MadeEncoders:
    """Gives the encoder of a recipe: ``mert 95m``, ``mert 330m``, ``openjmla``, ``efficientat``, ``yamnet``,
    ``tagger musicnn``, ``tagger fcn`` or ``tagger crnn``."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is that of the whole run."""
        self._folder = folder

    def __call__(self, recipe: str) -> ExportedEncoder:
        name = recipe.replace(" ", "-")
        kept = self._folder / f"{name}.pickle"
        if not kept.exists():
            work = self._folder / f"{name}-{os.getpid()}"
            work.mkdir(parents=True)
            part = work / kept.name
            part.write_bytes(pickle.dumps(exported(recipe, work)))
            part.replace(kept)
        found: ExportedEncoder = pickle.loads(kept.read_bytes())
        return found


def exported(recipe: str, folder: Path) -> ExportedEncoder:
    """From a checkpoint that is written into ``folder``."""
    family, _, kind = recipe.partition(" ")
    if family == "mert":
        return _mert(kind, folder)
    if family == "tagger":
        return _tagger(kind, folder)
    made: ExportedEncoder = {"openjmla": _openjmla, "efficientat": _efficientat, "yamnet": _yamnet}[family](folder)
    return made


def mert_checkpoint(architecture: str, folder: Path) -> Path:
    """95m has new names in pytorch_model.bin; 330m has old names under a prefix in safetensors."""
    from export import mert_maker

    if architecture == "95m":
        state = mert_maker.tensors(mert_maker.hubert(mert_maker.config("95m")))
        return mert_maker.write(folder / "95m", mert_maker.config("95m"), state=state, file="pytorch_model.bin")
    state = mert_maker.tensors(mert_maker.hubert(mert_maker.config("330m")), prefix="hubert.", old_names=True)
    return mert_maker.write(folder / "330m", mert_maker.config("330m"), state=state)


def _mert(architecture: str, folder: Path) -> ExportedEncoder:
    from edge_reclass_export.recipes.mert import MertOptions, mert_encoder
    from edge_reclass_export.recipes.mert_checkpoint import read_source

    return mert_encoder(read_source(mert_checkpoint(architecture, folder)), MertOptions(window_seconds=0.25))


def _openjmla(folder: Path) -> ExportedEncoder:
    from edge_reclass_export.recipes.openjmla import openjmla_encoder, read_source
    from export import openjmla_maker

    return openjmla_encoder(read_source(openjmla_maker.write_encoder_file(folder / "epoch_20.pth")))


def _efficientat(folder: Path) -> ExportedEncoder:
    from edge_reclass_export.recipes.efficientat import efficientat_encoder, read_source
    from export import efficientat_maker

    return efficientat_encoder(
        read_source(efficientat_maker.write(folder / "mn01_as_mAP_298.pt")), window_samples=16_000
    )


def _yamnet(folder: Path) -> ExportedEncoder:
    from edge_reclass_export.recipes.yamnet import read_source, yamnet_encoder
    from export import yamnet_maker

    return yamnet_encoder(read_source([yamnet_maker.write_h5(folder / "yamnet.h5", yamnet_maker.arrays())]), patches=2)


def _tagger(kind: str, folder: Path) -> ExportedEncoder:
    from edge_reclass_export.recipes.musicnn_torch import read_source, tagger_encoder
    from export import musicnn_torch_maker as maker

    source = read_source(maker.write(folder / f"{kind}.pth", maker.state(kind)))
    return tagger_encoder(source, window_samples=TAGGER_WINDOWS[kind])
