"""A synthetic bundle at tiny size, made by the real export commands, and tracks to set it on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import soundfile

from edge_reclass_bench.synthetic import make
from edge_reclass_bench.synthetic.tracks import RATE, synthesised

NAMES = ("mert-95m", "openjmla")


@dataclass
class Exports:
    """Runs export commands in this process, and keeps their arguments."""

    ran: list[list[str]] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str]) -> None:
        from typer.testing import CliRunner

        from edge_reclass_export.cli import app

        self.ran.append(list(arguments))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
            result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None:
            raise result.exception


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six short synthesised tracks."""
    folder = tmp_path_factory.mktemp("audio")
    files = []
    for i in range(6):
        files.append(folder / f"{i}.wav")
        soundfile.write(files[-1], synthesised(i, 3.0), RATE)
    return files


@dataclass
class Synthetic:
    """The bundle's directory, the folder that keeps it, what was exported for it, and what was said."""

    root: Path
    folder: Path
    exports: Exports
    said: list[str]


@pytest.fixture(scope="session")
def synthetic(audio: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Stages fma, mert-95m and openjmla with networks of a few layers in place of the published sizes."""
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: nothing can be exported")
    from edge_reclass_export.recipes import hubert, mert, mert_checkpoint, openjmla
    from edge_reclass_export.recipes.openjmla_model import Geometry

    tiny_mert = hubert.MertConfig(
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        conv_dim=(16,) * 3,
        conv_kernel=(10, 8, 4),
        conv_stride=(10, 8, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    tiny_vit = Geometry(width=64, layers=1, hidden=128, patch=16, rows=5, columns=6)
    full_source = openjmla.random_source
    exports, said = Exports(), []
    folder = tmp_path_factory.mktemp("synthetic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mert_checkpoint.RANDOM_CONFIGS, "95m", tiny_mert)
        patch.setattr(mert, "proved_batch", lambda seconds: 2)  # 16 windows of 5 s would take most of the time
        patch.setattr(openjmla, "random_source", lambda: full_source(tiny_vit))
        root = make(NAMES, folder, audio=audio, run=exports, say=said.append)
    return Synthetic(root, folder, exports, said)
