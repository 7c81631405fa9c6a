"""From a checked MERT checkpoint to an encoder in memory: float32 and float16, proved against torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite

import numpy as np
import onnx
import torch

from edge_reclass.cascade import DEFAULT_BATCH
from edge_reclass.errors import UsageError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import LinearLayer, head_contract, head_mlp
from edge_reclass_export.layer_mix import LayerMix
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.recipes.hubert import random_weights
from edge_reclass_export.recipes.mert import RANDOM_CONFIGS, Layer, MertSource, Preprocessing
from edge_reclass_export.recipes.mert_model import build
from edge_reclass_export.torch_export import Progress, export_precisions, mute

__all__ = [
    "WIDER_ISLANDS",
    "MertOptions",
    "mert_encoder",
    "proved_batch",
    "random_head",
    "random_source",
    "window_samples",
]

STAGE = "mert"
RANDOM_SEED = 20_231_016
HEAD_WIDTHS = (256, 128)
"""Hidden layers of the older project's heads, and so of an untrained one."""

WIDER_ISLANDS = (
    ("layers.*.feed_forward",),
    ("layers.*.attention",),
    ("layers.*",),
    ("layers.*", "conv_layers.*", "feature_projection"),
)
"""What stays in float32 where real weights leave float16's range, tried in turn."""

_MAX_WINDOW_SECONDS = 120.0
_PROVED_SECONDS = 80.0
"""The largest batch that is proved holds about this much audio: attention grows with the square of a window."""
_LONG_SECONDS = 60.0
"""Up to this length three windows are proved at once, for which 16 heads' scores take 3.9 GB in one layer; then two."""


@dataclass(frozen=True)
class MertOptions:
    """``layer``: the hidden state that becomes the embedding, or a mix of all of them.

    ``window_seconds``: static length of the graph's input.
    """

    layer: Layer | LayerMix = "last"
    window_seconds: float = 5.0


def mert_encoder(source: MertSource, options: MertOptions | None = None, progress: Progress = mute) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved, not yet on the disk.

    Raises:
        UsageError: an option is out of range.
        ParityError: a graph does not give the numbers that torch gives.
    """
    options = options or MertOptions()
    config, preprocessing = source.config, source.preprocessing
    window, layer = window_samples(source, options), options.layer
    module: EncoderModule = build(config, source.weights, normalise=preprocessing.do_normalize, layer=layer)
    export = export_precisions(
        module,
        name=STAGE,
        rate=preprocessing.sampling_rate,
        window_samples=window,
        dim=config.hidden_size,
        wider_islands=WIDER_ISLANDS,
        max_batch=proved_batch(options.window_seconds),
        notice=_notice(source),
        progress=progress,
    )
    network = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    return ExportedEncoder(
        name=STAGE,
        model=export.models["fp32"],
        rate=preprocessing.sampling_rate,
        window_samples=window,
        hop_samples=window,
        short="repeat",
        dim=config.hidden_size,
        provenance={
            "recipe": STAGE,
            **source.provenance,
            "network": network,
            "do_normalize": preprocessing.do_normalize,
            "layer": layer if isinstance(layer, int | str) else {"weights": list(layer.weights), "bias": layer.bias},
            "frames": config.frames(window),
            "tools": {"torch": torch.__version__.partition("+")[0], "onnx": onnx.__version__},
            "parity": export.parity,
            "batches_proved": [int(key.removeprefix("batch_")) for key in export.parity["fp32"] if "batch" in key],
        },
        licence_file="LICENSE.mert" if source.licence else "",
        licence=source.licence,
        others={"fp16": export.models["fp16"]},
        reference=export.reference,
    )


def _notice(source: MertSource) -> str:
    """What stands in the graphs about the weights: their licence where one lay beside them."""
    made = f"MERT (Li et al. 2023), weights from {source.provenance['source']}"
    return f"{made}\n\n{source.licence or str(source.provenance['licence'])}"


def proved_batch(window_seconds: float) -> int:
    """The largest batch that an export tries: the runtime's, or fewer where windows are long."""
    least = 3 if window_seconds <= _LONG_SECONDS else 2
    return min(DEFAULT_BATCH, max(least, int(_PROVED_SECONDS / window_seconds)))


def window_samples(source: MertSource, options: MertOptions) -> int:
    """Length of the graph's input. Raises ``UsageError`` where ``options`` do not fit the network."""
    seconds, layers = options.window_seconds, source.config.num_hidden_layers
    if isinstance(options.layer, int) and options.layer > layers:
        raise UsageError(f"--layer {options.layer}: expected 0 to {layers}, the layers of this checkpoint")
    if not isfinite(seconds) or not 0.0 < seconds <= _MAX_WINDOW_SECONDS:
        raise UsageError(f"--window-seconds: expected up to {_MAX_WINDOW_SECONDS:g}, got {seconds:g}")
    samples = round(seconds * source.preprocessing.sampling_rate)
    if source.config.frames(samples) < 1:
        raise UsageError(f"--window-seconds {seconds:g}: {samples} samples give no frame")
    return samples


def random_source(size: str) -> MertSource:
    """Untrained weights at the published size ``95m`` or ``330m``, for measurements; their provenance says so.

    Raises ``UsageError`` where there is no such size.
    """
    if size not in RANDOM_CONFIGS:
        raise UsageError(f"--random-init: expected {' or '.join(RANDOM_CONFIGS)}, got {size!r}")
    config = RANDOM_CONFIGS[size]
    return MertSource(
        config,
        Preprocessing(config.sample_rate, do_normalize=True),
        random_weights(config, RANDOM_SEED),
        {
            "random_init": True,
            "source": f"untrained weights of the size {size}, seed {RANDOM_SEED}",
            "licence": "none: nothing was trained",
        },
    )


def random_head(features: int, classes: int) -> bytes:
    """An untrained head features → 256 → 128 → classes as ONNX bytes, for measurements."""
    random = np.random.default_rng(RANDOM_SEED)
    widths = (features, *HEAD_WIDTHS, classes)
    layers = [
        LinearLayer(random.standard_normal((inputs, outputs)) / np.sqrt(inputs), np.zeros(outputs))
        for inputs, outputs in pairwise(widths)
    ]
    return model_bytes(head_mlp(layers), expect=head_contract(layers))
