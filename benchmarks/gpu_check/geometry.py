"""The encoders that are measured: how each is made at full size or tiny, and how much arithmetic a window takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from edge_reclass.bundle import ExcerptEntry
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.recipes.hubert import MertConfig, random_weights
from edge_reclass_export.recipes.mert import MertOptions, mert_encoder, random_source
from edge_reclass_export.recipes.mert_checkpoint import RANDOM_CONFIGS, MertSource, Preprocessing
from edge_reclass_export.recipes.mert_model import build as build_mert
from edge_reclass_export.recipes.openjmla import one_window, openjmla_encoder
from edge_reclass_export.recipes.openjmla import random_source as random_openjmla
from edge_reclass_export.recipes.openjmla_checkpoint import FULL_SIZE
from edge_reclass_export.recipes.openjmla_model import N_FFT, Geometry
from edge_reclass_export.recipes.openjmla_model import build as build_openjmla
from gpu_check.settings import Settings

__all__ = ["Encoder", "encoders", "mert_flops", "openjmla_flops"]

_SEED = 518
_USED_BINS = 198
"""Frequency bins of OpenJMLA's 400-point transform that a mel band takes."""


@dataclass(frozen=True)
class Encoder:
    """One encoder with untrained weights, the same in every process.

    ``flops`` are floating-point operations per window (a multiplication and an addition are two); ``export`` makes its
    graphs, ``module`` the float32 torch module that they come from. ``seconds`` is roughly what the export takes.
    """

    name: str
    rate: int
    window: int
    dim: int
    flops: float
    excerpt: ExcerptEntry
    seconds: float
    export: Callable[[], ExportedEncoder]
    module: Callable[[], EncoderModule]


def encoders(settings: Settings) -> list[Encoder]:
    """Those that ``--encoders`` names, by default all."""
    known = _tiny() if settings.tiny else _full()
    names = [one.name for one in known]
    if unknown := [name for name in settings.encoders if name not in names]:
        raise ValueError(f"--encoders: no {', '.join(unknown)}; there are {', '.join(names)}")
    return [one for one in known if not settings.encoders or one.name in settings.encoders]


def _full() -> list[Encoder]:
    return [
        _mert("mert-95m", RANDOM_CONFIGS["95m"], partial(_full_source, "95m"), 5.0, 60.0),
        _openjmla("openjmla", FULL_SIZE, 60.0),
        _mert("mert-330m", RANDOM_CONFIGS["330m"], partial(_full_source, "330m"), 5.0, 150.0),
    ]


def _tiny() -> list[Encoder]:
    shared = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    # The two kinds of transformer: norms behind the sums as in 95M, before them as in 330M.
    kinds = {
        "mert-95m": MertConfig(48, 2, 4, 96, **shared),  # type: ignore[arg-type]
        "mert-330m": MertConfig(64, 2, 4, 128, do_stable_layer_norm=True, attention_relax=32.0, **shared),  # type: ignore[arg-type]
    }
    merts = {name: _mert(name, config, partial(_tiny_source, config), 0.5, 1.0) for name, config in kinds.items()}
    geometry = Geometry(width=128, layers=2, hidden=192, patch=16, rows=5, columns=6)
    return [merts["mert-95m"], _openjmla("openjmla", geometry, 1.0), merts["mert-330m"]]


# One source at a time is kept: initialising 330M takes seconds, and every contender is made from the same weights.
_full_source = lru_cache(maxsize=1)(random_source)
_openjmla_source = lru_cache(maxsize=1)(random_openjmla)


def _tiny_source(config: MertConfig) -> MertSource:
    preprocessing = Preprocessing(config.sample_rate, do_normalize=True)
    provenance = {"random_init": True, "source": "random weights", "licence": "none"}
    return MertSource(config, preprocessing, random_weights(config, _SEED), provenance)


def _mert(
    name: str, config: MertConfig, source: Callable[[], MertSource], window_seconds: float, seconds: float
) -> Encoder:
    window = round(window_seconds * config.sample_rate)
    return Encoder(
        name,
        config.sample_rate,
        window,
        config.hidden_size,
        mert_flops(config, window),
        ExcerptEntry(start="center", seconds=6 * window_seconds),
        seconds,
        lambda: mert_encoder(source(), MertOptions(window_seconds=window_seconds)),
        lambda: build_mert(config, source().weights, normalise=True, layer="last"),
    )


def _openjmla(name: str, geometry: Geometry, seconds: float) -> Encoder:
    return Encoder(
        name,
        16_000,
        geometry.window_samples,
        geometry.width,
        openjmla_flops(geometry),
        one_window(geometry.window_samples),
        seconds,
        lambda: openjmla_encoder(_openjmla_source(geometry)),
        lambda: build_openjmla(_openjmla_source(geometry).weights, "mean"),
    )


def _transformer_flops(tokens: int, width: int, hidden: int, layers: int) -> float:
    """Four projections, two feed-forward products, and the two products of attention, per layer."""
    return 2.0 * layers * tokens * (4 * width * width + 2 * width * hidden + 2 * tokens * width)


def mert_flops(config: MertConfig, samples: int) -> float:
    """Convolutions, projection, positional convolution and transformer of one window."""
    total, inputs = 0.0, 1
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
        total += 2.0 * samples * kernel * inputs * width
        inputs = width
    hidden = config.hidden_size
    total += 2.0 * samples * inputs * hidden
    # Padded on both sides by half an even kernel: one frame more than there are, which is cut off.
    frames = samples + (config.num_conv_pos_embeddings % 2 == 0)
    total += 2.0 * frames * hidden * (hidden // config.num_conv_pos_embedding_groups) * config.num_conv_pos_embeddings
    return total + _transformer_flops(samples, hidden, config.intermediate_size, config.num_hidden_layers)


def openjmla_flops(geometry: Geometry) -> float:
    """Spectrum as a convolution, mel bands, patches and transformer of one window."""
    frames, patches = geometry.frames, geometry.rows * geometry.columns
    front = 2.0 * frames * N_FFT * 2 * _USED_BINS + 2.0 * frames * 80 * 2 * _USED_BINS
    patch = 2.0 * patches * 3 * geometry.patch**2 * geometry.width
    return front + patch + _transformer_flops(geometry.tokens, geometry.width, geometry.hidden, geometry.layers)
