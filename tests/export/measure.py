"""Measures what docs/notes/musicnn.md states: parity on real audio, latency, and the scaler folded against explicit.

PYTHONPATH=tests python -m export.measure parity  WHEEL DATA
PYTHONPATH=tests python -m export.measure latency WHEEL
PYTHONPATH=tests python -m export.measure scaler
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from edge_reclass.bundle import agreement
from edge_reclass.bundle.reference import synthesise
from edge_reclass_export.heads import LinearLayer, Scaler, head_interface, head_mlp
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.parity import run_graph
from edge_reclass_export.recipes.musicnn import musicnn_encoder
from edge_reclass_export.recipes.musicnn_model import SAMPLE_RATE, VARIANTS, WINDOW_SAMPLES, MusicnnOptions
from export.musicnn_reference import answer, log_mel, patches
from export.test_musicnn import decode, windows

PARTS = {"penultimate": slice(0, 200), "mean_pool": slice(200, 953), "max_pool": slice(953, 1706)}


def parity(wheel: MusicnnWheel, data: Path) -> None:
    """Largest differences over the FMA clips, two windows each, with and without the reference's float16 cast."""
    clips = sorted((data / "audio" / "fma").glob("*.mp3"))
    for variant in VARIANTS:
        bundle = wheel.checkpoint(variant)
        worst: dict[tuple[str, bool], float] = {}
        for cast_in_graph in (False, True):
            options = MusicnnOptions("penultimate+pool", tags=True, float16_cast=cast_in_graph)
            model = musicnn_encoder(wheel, variant=variant, options=options).model
            for clip in clips:
                audio = decode(clip, seconds=6.1, start=5.0)
                embedding, tags = run_graph(model, windows(audio))
                for cast in (False, True):
                    if cast_in_graph and not cast:
                        continue
                    mel = log_mel(audio, center=False, float16=cast, dtype=np.float64)
                    expected = [answer(bundle, patch) for patch in patches(mel)]
                    pair = f"graph {'with' if cast_in_graph else 'without'} cast"
                    figures = {"tags": np.abs(tags - [one.tags for one in expected]).max()}
                    for name, part in PARTS.items():
                        want = np.array([getattr(one, name) for one in expected])
                        figures[f"{name} relative"] = agreement(want, embedding[:, part]).relative
                    for name, value in figures.items():
                        key = (f"{pair}, {name}", cast)
                        worst[key] = max(worst.get(key, 0.0), float(value))
        for (name, cast), value in worst.items():
            print(f"{variant}, {len(clips)} clips, reference {'with' if cast else 'without'} cast, {name}: {value:.1e}")


def latency(wheel: MusicnnWheel, runs: int = 15) -> None:
    """Median milliseconds for the ten windows of 30 s."""
    model = musicnn_encoder(wheel).model
    inputs = np.resize(synthesise(SAMPLE_RATE, WINDOW_SAMPLES, 1), (10, WINDOW_SAMPLES))
    for threads in (1, 2):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options)
        times = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            session.run(None, {"waveform": inputs})
            times.append(time.perf_counter() - began)
        print(f"10 windows, {threads} threads: median {1e3 * np.median(times[1:]):.0f} ms of {runs}")


def scaler() -> None:
    """A head on 518 features whose scales lie between 1e-6 and 1e4."""
    random = np.random.default_rng(1)
    scale = 10.0 ** random.uniform(-6, 4, 518)
    for label, mean in (
        ("mean up to 3 deviations", scale * random.uniform(-3, 3, 518)),
        ("mean 0.1 to 1000 deviations", scale * 10.0 ** random.uniform(-1, 3, 518)),
    ):
        features = (mean + scale * random.standard_normal((256, 518))).astype(np.float32)
        layer = LinearLayer(random.standard_normal((518, 10)) / np.sqrt(518), random.standard_normal(10))
        expected = (features.astype(np.float64) - mean) / scale @ layer.kernel + layer.bias
        folded = LinearLayer(layer.kernel / scale[:, None], layer.bias - (mean / scale) @ layer.kernel)
        for name, model in (("explicit", head_mlp([layer], Scaler(mean, scale))), ("folded", head_mlp([folded]))):
            got = run_graph(model_bytes(model, expect=head_interface([layer])), features)[0]
            print(f"{label}, {name}: largest difference {agreement(expected, got).max_abs:.1e}")


def main(arguments: list[str]) -> None:
    """Runs one measurement."""
    if arguments[0] == "scaler":
        scaler()
    elif arguments[0] == "latency":
        latency(MusicnnWheel(Path(arguments[1])))
    else:
        parity(MusicnnWheel(Path(arguments[1])), Path(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
