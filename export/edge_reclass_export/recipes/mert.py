"""``edge-reclass export mert``: a MERT checkpoint, in float32 and float16, proved against torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.recipe import EncoderPlan, Export, encoder_recipe, window_length

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.layer_mix import LayerMix, MixKind
    from edge_reclass_export.recipes.mert_checkpoint import Layer, MertSource
    from edge_reclass_export.torch_export import Progress

STAGE = "mert"
RANDOM_SEED = 20_231_016

FLOAT32_REGIONS = (
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

_HELP = """Export a MERT checkpoint: float32 and float16, one window of 24 kHz audio to 768 or 1024 values.

The size comes from the checkpoint and has to fit its config.json and the head. A bundle with untrained weights is
marked, and classify refuses it without --allow-random. What was written is described on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
"""


def _read(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Directory with config.json, preprocessor_config.json and the weights, the file with the weights in"
            " it, or the model's folder in the hub's cache.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    layer: Annotated[
        str,
        typer.Option(
            help="Hidden state that becomes the embedding: last, a number from 0 on, mean-of-all, or a learned mix of"
            " all: mix (a Conv1d's weights), mix-plain or mix-softmax (a vector's)."
        ),
    ] = "last",
    layer_weights: Annotated[
        Path | None,
        typer.Option(help="The mix's weights: a checkpoint, .npz or .npy. [default: as they lie in the head's file]"),
    ] = None,
    window_seconds: Annotated[float, typer.Option(help="Length of the graph's input.")] = 5.0,
    random_init: Annotated[
        str | None,
        typer.Option(help="95m or 330m: untrained weights of that size instead of CHECKPOINT, for measurements."),
    ] = None,
) -> EncoderPlan:
    if (checkpoint is None) == (random_init is None):
        raise UsageError("give either a CHECKPOINT or --random-init 95m|330m")
    from edge_reclass_export.recipes.mert_checkpoint import parse_layer, read_source

    wanted = parse_layer(layer)

    def read() -> MertSource:
        return random_source(random_init or "") if checkpoint is None else read_source(checkpoint)

    source = read()
    states = source.config.num_hidden_layers + 1

    def prepare(head: Path | None, mix: Mapping[str, NDArray[np.float64]]) -> Export:
        options = MertOptions(_layer(wanted, layer_weights, head, mix, states), window_seconds)
        return lambda progress: mert_encoder(read(), options, progress)

    return EncoderPlan(
        source.preprocessing.sampling_rate,
        _window_samples(source, wanted, window_seconds),
        source.config.hidden_size,
        prepare,
        untrained=random_init is not None,
    )


def _layer(
    wanted: Layer | MixKind,
    layer_weights: Path | None,
    head: Path | None,
    beside: Mapping[str, NDArray[np.float64]],
    states: int,
) -> Layer | LayerMix:
    """The hidden state, or the mix of ``states`` of them whose weights lie in a file of their own or in the head's."""
    from edge_reclass_export.layer_mix import mix_of, read_mix

    if wanted == "mix" or wanted == "mix-plain" or wanted == "mix-softmax":  # noqa: PLR1714 - mypy narrows these
        if layer_weights is not None:
            return read_mix(layer_weights, wanted, states)
        if head is not None and beside:
            return mix_of(head, beside, wanted, states)
        raise UsageError(f"--layer {wanted}: the weights lie in no file: give --layer-weights FILE")
    if layer_weights is not None or beside:
        where = "--layer-weights goes" if layer_weights is not None else f"the layer weights in {head} go"
        raise UsageError(f"{where} with --layer mix, mix-plain or mix-softmax, got --layer {wanted}")
    return wanted


RECIPE = encoder_recipe("mert", _read, help=_HELP, stage=STAGE, layer_mix=True)


@dataclass(frozen=True)
class MertOptions:
    """``layer``: the hidden state that becomes the embedding, or a mix of all of them.

    ``window_seconds``: static length of the graph's input.
    """

    layer: Layer | LayerMix = "last"
    window_seconds: float = 5.0


def mert_encoder(
    source: MertSource, options: MertOptions | None = None, progress: Progress = lambda _: None
) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved, not yet on the disk.

    Raises:
        UsageError: an option is out of range.
        ParityError: a graph does not give the numbers that torch gives.
    """
    from edge_reclass_export.recipes.mert_model import build
    from edge_reclass_export.torch_export import export_encoder

    options = options or MertOptions()
    config, layer = source.config, options.layer
    window = _window_samples(source, layer, options.window_seconds)
    network = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    return export_encoder(
        build(config, source.weights, normalise=source.preprocessing.do_normalize, layer=layer),
        name=STAGE,
        rate=source.preprocessing.sampling_rate,
        window_samples=window,
        dim=config.hidden_size,
        short="repeat",
        provenance={
            "recipe": STAGE,
            **source.provenance,
            "network": network,
            "do_normalize": source.preprocessing.do_normalize,
            "layer": layer if isinstance(layer, int | str) else {"weights": list(layer.weights), "bias": layer.bias},
            "frames": config.frames(window),
        },
        title="MERT (Li et al. 2023)",
        licence=source.licence,
        float32_regions=FLOAT32_REGIONS,
        max_batch=proved_batch(options.window_seconds),
        progress=progress,
    )


def proved_batch(window_seconds: float) -> int:
    """The largest batch that an export tries: the runtime's, or fewer where windows are long."""
    from edge_reclass.cascade import DEFAULT_BATCH

    least = 3 if window_seconds <= _LONG_SECONDS else 2
    return min(DEFAULT_BATCH, max(least, int(_PROVED_SECONDS / window_seconds)))


def _window_samples(source: MertSource, layer: Layer | MixKind | LayerMix, seconds: float) -> int:
    """Length of the graph's input. Raises ``UsageError`` where the options do not fit the network."""
    layers = source.config.num_hidden_layers
    if isinstance(layer, int) and layer > layers:
        raise UsageError(f"--layer {layer}: expected 0 to {layers}, the layers of this checkpoint")
    samples = window_length(seconds, source.preprocessing.sampling_rate, _MAX_WINDOW_SECONDS)
    if source.config.frames(samples) < 1:
        raise UsageError(f"--window-seconds {seconds:g}: {samples} samples give no frame")
    return samples


def random_source(size: str) -> MertSource:
    """Untrained weights at the published size ``95m`` or ``330m``, for measurements; their provenance says so.

    Raises ``UsageError`` where there is no such size.
    """
    from edge_reclass_export.recipes.hubert import random_weights
    from edge_reclass_export.recipes.mert_checkpoint import RANDOM_CONFIGS, MertSource, Preprocessing

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
