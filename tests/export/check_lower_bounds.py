"""Exports tiny untrained encoders where the lower bounds of the extra ``export`` are installed; each proves itself.

python3.10 -m venv .venv310-export
.venv310-export/bin/pip install -c constraints/oldest.txt -c constraints/oldest-export.txt -e '.[cpu,export]'
PYTHONPATH=tests .venv310-export/bin/python -m export.check_lower_bounds
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from edge_reclass.bundle.loading import load
from edge_reclass_export.bundle_writer import put_encoder, stage_head
from edge_reclass_export.layer_mix import LayerMix
from edge_reclass_export.recipes.hubert import MertConfig, random_weights
from edge_reclass_export.recipes.mert import MertOptions, mert_encoder
from edge_reclass_export.recipes.mert_checkpoint import MertSource, Preprocessing
from edge_reclass_export.recipes.openjmla import openjmla_encoder, random_source
from edge_reclass_export.recipes.openjmla_model import Geometry

TINY = MertConfig(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    conv_dim=(32,) * 3,
    conv_kernel=(10, 8, 4),
    conv_stride=(5, 4, 4),
)


def main() -> None:
    """Raises where an export or its proof fails; prints the version of torch and the agreement of each graph."""
    said = {"source": "untrained", "licence": "none"}
    source = MertSource(TINY, Preprocessing(24_000, do_normalize=True), random_weights(TINY, 1), said)
    encoders = [
        mert_encoder(source, MertOptions(LayerMix((0.2, 0.3, 0.5), 0.1), window_seconds=0.25)),
        openjmla_encoder(random_source(Geometry(64, 1, 128, 16, 5, 7))),
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundle"
        for encoder in encoders:
            path = Path(folder) / f"{encoder.name}.pth"
            torch.save({"fc.weight": torch.ones(2, encoder.dim)}, path)
            head = stage_head(root, path, encoder.dim, ["A", "B"])
            put_encoder(root, encoder, head=head.content, head_source=head.source, genres=["A", "B"])
        load(root).verify()
    print("torch", torch.__version__, {encoder.name: encoder.provenance["parity"] for encoder in encoders})


if __name__ == "__main__":
    main()
