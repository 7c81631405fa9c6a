"""Loads every ONNX file of a bundle and compares it with its reference vectors; needs the runtime only.

To be run by the oldest supported Python and ONNX Runtime:
PYTHONPATH=runtime:tests python3.10 -m export.check_oldest BUNDLE...
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from edge_reclass.bundle import WaveformEntry
from edge_reclass.bundle.loading import load
from edge_reclass.bundle.reference import agreement, load_reference

LEAST = {"fp32": 0.999999, "fp16": 0.9999}


def check(root: Path) -> bool:
    """Prints a line per file; False where one does not load or does not agree."""
    bundle = load(root)
    bundle.verify()
    good = True
    for stage in bundle.manifest.stages:
        head = onnxruntime.InferenceSession(str(bundle.path(stage.head.file)), providers=["CPUExecutionProvider"])
        width = head.get_inputs()[0].shape[1]
        logits = head.run(None, {"features": np.zeros((1, width), np.float32)})[0]
        print(f"{root.name}/{stage.head.file}: loads, [1, {width}] to {list(logits.shape)}")
        if not isinstance(stage.encoder, WaveformEntry) or stage.encoder.reference is None:
            continue
        vectors = load_reference(bundle.path(stage.encoder.reference))
        for precision, file in stage.encoder.files.items():
            session = onnxruntime.InferenceSession(str(bundle.path(file)), providers=["CPUExecutionProvider"])
            found = agreement(vectors.embedding, session.run(None, {"waveform": vectors.inputs()})[0])
            good &= found.cosine >= LEAST[precision]
            print(f"{root.name}/{file}: loads, cosine {found.cosine:.9f}, relative error {found.relative:.1e}")
    return good


if __name__ == "__main__":
    print(f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}")
    results = [check(Path(root)) for root in sys.argv[1:]]
    sys.exit(0 if all(results) else 1)
