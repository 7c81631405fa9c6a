"""musicnn (Pons & Serra, ISMIR-LBD 2019): 3 s of audio to tags and to embeddings.

The weights come from the wheel ``musicnn`` 0.1.0 (© MTG/UPF, ISC licence), which is read as an archive and is
never installed or imported. The network follows the wheel's ``models.py`` (``build_musicnn``); the front end
follows its ``extractor.py``, except that frames lie inside the window, so that one window of 48 128 samples
gives exactly the 187 frames of one patch, and consecutive windows (hop 47 872) give contiguous frames.

Rewritten without changing the function:

* Every layer works on ``[batch, channels, time]``; the mid-end's two-dimensional convolutions over all
  channels are one-dimensional ones.
* The input's normalisation has one channel, so it joins the logarithm's gain and shift.
* In the front end's blocks, max over frequency of ``s · relu(c) + t`` is ``s · relu(max c) + t`` for s > 0,
  and for s < 0 the same holds with the kernel's sign turned. So relu and normalisation run after the
  maximum, on a thirtieth to a hundredth of the values.
* The pooled vector's normalisation joins the dense layer behind it, whose rows are ordered mean, then max.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_reclass_export.frontend import LogMel, add_log_mel
from edge_reclass_export.graph import GraphBuilder, Value
from edge_reclass_export.onnx_writer import BATCH, GraphInterface, TensorSpec
from edge_reclass_export.tensorflow_bundle import TensorBundle

Variant = Literal["msd", "mtt"]
Embedding = Literal["penultimate", "pool", "penultimate+pool"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
EMBEDDINGS: tuple[Embedding, ...] = get_args(Embedding)

SAMPLE_RATE = 16_000
N_FFT = 512
FRAME_HOP = 256
BANDS = 96
FRAMES = 187
WINDOW_SAMPLES = (FRAMES - 1) * FRAME_HOP + N_FFT
HOP_SAMPLES = FRAMES * FRAME_HOP
TAG_COUNT = 50

_EPSILON = 1e-3  # default of TensorFlow's batch_normalization
_KERNEL_FRAMES = 7
_MID_CHANNELS = 64
_DENSE_UNITS = 200
# The convolution's number in the checkpoint, kernel (frames, bands), filters; in the concatenation's order.
_FRONT_BLOCKS = ((0, (7, 38), 204), (1, (7, 67), 204), (2, (128, 1), 51), (3, (64, 1), 51), (4, (32, 1), 51))
# With whole vectors of filters ONNX Runtime keeps its blocked layout from the convolution to the pooling: 6 %
# less time than with 204 and 51 filters (docs/notes/musicnn.md), and it computes the idle filters in any case.
_FILTER_MULTIPLE = 16
_FRONT_CHANNELS = sum(filters for _, _, filters in _FRONT_BLOCKS)
_POOL_CHANNELS = _FRONT_CHANNELS + 3 * _MID_CHANNELS
_DIMS: Mapping[Embedding, int] = {
    "penultimate": _DENSE_UNITS,
    "pool": 2 * _POOL_CHANNELS,
    "penultimate+pool": _DENSE_UNITS + 2 * _POOL_CHANNELS,
}


@dataclass(frozen=True)
class MusicnnOptions:
    """What the graph gives.

    ``embedding``: ``penultimate`` (200, after the dense layer's normalisation), ``pool`` (1506: the mean over
    time of the 753 channels, then their maximum) or ``penultimate+pool`` (1706, in that order). ``tags`` adds
    the output ``tags[batch, 50]``, probabilities in the order of the wheel's label lists. ``float16_cast``
    rounds the mel power to float16 as the training pipeline did.
    """

    embedding: Embedding = "penultimate"
    tags: bool = False
    float16_cast: bool = False

    @property
    def dim(self) -> int:
        """Number of values of the embedding."""
        return _DIMS[self.embedding]


@dataclass(frozen=True)
class Convolution:
    """Kernel (time, band or 1, in, out: TensorFlow's order), bias, and the affine map after the relu."""

    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


@dataclass(frozen=True)
class MusicnnWeights:
    """The network's weights in float64; every normalisation is given as the affine map that it is."""

    input_scale: float
    input_shift: float
    front: tuple[Convolution, ...]
    mid: tuple[Convolution, ...]
    pool_scale: NDArray[np.float64]
    pool_shift: NDArray[np.float64]
    dense_kernel: NDArray[np.float64]
    dense_bias: NDArray[np.float64]
    dense_scale: NDArray[np.float64]
    dense_shift: NDArray[np.float64]
    tags_kernel: NDArray[np.float64]
    tags_bias: NDArray[np.float64]


def read_weights(bundle: TensorBundle) -> MusicnnWeights:
    """Takes the network's tensors from a checkpoint. Raises ``CheckpointError`` where one does not fit."""

    def tensor(name: str, *shape: int) -> NDArray[np.float64]:
        return bundle.tensor(name, shape).astype(np.float64)

    def normalisation(number: int, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        name = "batch_normalization" + (f"_{number}" if number else "")
        scale = tensor(f"{name}/gamma", channels) / np.sqrt(tensor(f"{name}/moving_variance", channels) + _EPSILON)
        return scale, tensor(f"{name}/beta", channels) - tensor(f"{name}/moving_mean", channels) * scale

    def convolution(number: int, height: int, width: int, filters: int) -> Convolution:
        name = "conv2d" + (f"_{number}" if number else "")
        kernel = tensor(f"{name}/kernel", height, width, 1, filters)
        return Convolution(kernel, tensor(f"{name}/bias", filters), *normalisation(number + 1, filters))

    input_scale, input_shift = normalisation(0, 1)
    front = tuple(convolution(number, *kernel, filters) for number, kernel, filters in _FRONT_BLOCKS)
    mid = tuple(
        convolution(number, _KERNEL_FRAMES, width, _MID_CHANNELS)
        for number, width in ((5, _FRONT_CHANNELS), (6, _MID_CHANNELS), (7, _MID_CHANNELS))
    )
    return MusicnnWeights(
        float(input_scale[0]),
        float(input_shift[0]),
        front,
        mid,
        *normalisation(9, 2 * _POOL_CHANNELS),
        tensor("dense/kernel", 2 * _POOL_CHANNELS, _DENSE_UNITS),
        tensor("dense/bias", _DENSE_UNITS),
        *normalisation(10, _DENSE_UNITS),
        tensor("dense_1/kernel", _DENSE_UNITS, TAG_COUNT),
        tensor("dense_1/bias", TAG_COUNT),
    )


def interface(options: MusicnnOptions) -> GraphInterface:
    """Inputs and outputs of the graph that ``build`` gives."""
    extra = (TensorSpec("tags", (TAG_COUNT,)),) if options.tags else ()
    return GraphInterface.encoder(WINDOW_SAMPLES, options.dim, *extra)


def build(weights: MusicnnWeights, options: MusicnnOptions) -> onnx.ModelProto:
    """The graph ``waveform[batch, 48128] → embedding[batch, dim]`` (and ``tags[batch, 50]``)."""
    graph = GraphBuilder("musicnn")
    waveform = graph.input("waveform", (BATCH, WINDOW_SAMPLES))
    front_end = LogMel(
        sample_rate=SAMPLE_RATE,
        n_fft=N_FFT,
        hop=FRAME_HOP,
        bands=BANDS,
        low_hz=0.0,
        high_hz=SAMPLE_RATE / 2,
        # log10(10000 x + 1), then the network's own input normalisation
        log_scale=10_000.0,
        log_offset=1.0,
        gain=weights.input_scale / log(10.0),
        shift=weights.input_shift,
        float16_power=options.float16_cast,
    )
    mel = add_log_mel(graph, waveform, WINDOW_SAMPLES, front_end)
    channels = _add_channels(graph, mel, weights)
    mean = graph.op("ReduceMean", channels, graph.integers(2), name="pool/mean", keepdims=0)
    maximum = graph.op("ReduceMax", channels, graph.integers(2), name="pool/max", keepdims=0)
    pool = graph.op("Concat", mean, maximum, name="pool/mean_max", axis=1)
    parts: list[Value] = []
    if options.embedding != "pool" or options.tags:
        penultimate = _add_dense(graph, pool, weights)
        if options.embedding != "pool":
            parts.append(penultimate)
        if options.tags:
            logits = _add_linear(graph, penultimate, weights.tags_kernel, weights.tags_bias, "tags/logits")
            tags = graph.op("Sigmoid", logits, name="tags/probabilities")
    if options.embedding != "penultimate":
        parts.append(pool)
    embedding = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, name="embedding/parts", axis=1)
    graph.output(embedding, "embedding", (BATCH, options.dim))
    if options.tags:
        graph.output(tags, "tags", (BATCH, TAG_COUNT))
    return graph.model()


def _add_channels(graph: GraphBuilder, mel: Value, weights: MusicnnWeights) -> Value:
    """All 753 channels over time, ``[batch, 753, frames]``, from the normalised log mel."""
    levels = [_add_front(graph, mel, weights.front)]
    for number, layer in enumerate(weights.mid):
        name = f"mid/layer_{number}"
        level = graph.op(
            "Conv",
            levels[-1],
            graph.weight(layer.kernel[:, :, 0, :].transpose(2, 1, 0), f"{name}/kernel"),
            graph.weight(layer.bias, f"{name}/bias"),
            name=f"{name}/conv",
            pads=[_KERNEL_FRAMES // 2, _KERNEL_FRAMES // 2],
        )
        level = _add_affine(graph, graph.op("Relu", level, name=f"{name}/relu"), layer.scale, layer.shift, name)
        if number:
            level = graph.op("Add", level, levels[-1], name=f"{name}/residual")
        levels.append(level)
    return graph.op("Concat", *levels, name="mid/channels", axis=1)


def _add_front(graph: GraphBuilder, mel: Value, blocks: Sequence[Convolution]) -> Value:
    """The timbral and temporal channels, ``[batch, 561, frames]``."""
    image = graph.op("Unsqueeze", mel, graph.integers(1), name="front/image")
    scale = np.concatenate([block.scale for block in blocks])
    shift = np.concatenate([block.shift for block in blocks])
    sign = np.where(scale < 0.0, -1.0, 1.0)
    maxima = [_add_front_maximum(graph, image, block, f"front/block_{number}") for number, block in enumerate(blocks)]
    joined = graph.op("Concat", *maxima, name="front/maxima", axis=1)
    value = graph.op("Squeeze", joined, graph.integers(3), name="front/channels")
    if (sign < 0.0).any():
        value = graph.op("Mul", value, graph.weight(sign[:, None], "front/sign"), name="front/signed")
    return _add_affine(graph, graph.op("Relu", value, name="front/relu"), scale, shift, "front")


def _add_front_maximum(graph: GraphBuilder, image: Value, block: Convolution, name: str) -> Value:
    """Convolution, maximum over frequency: ``[batch, filters, frames, 1]``, falling channels negated."""
    frames, bands, _, filters = block.kernel.shape
    before = (frames - 1) // 2  # TensorFlow's SAME padding puts the odd frame behind
    sign = np.where(block.scale < 0.0, -1.0, 1.0)
    idle = -filters % _FILTER_MULTIPLE
    kernel = np.pad(block.kernel.transpose(3, 2, 0, 1) * sign[:, None, None, None], ((0, idle), (0, 0), (0, 0), (0, 0)))
    response = graph.op(
        "Conv",
        image,
        graph.weight(kernel, f"{name}/kernel"),
        graph.weight(np.pad(block.bias * sign, (0, idle)), f"{name}/bias"),
        name=f"{name}/conv",
        pads=[before, 0, frames - 1 - before, 0],
    )
    width = BANDS - bands + 1
    strongest = graph.op("MaxPool", response, name=f"{name}/max", kernel_shape=[1, width], strides=[1, width])
    return graph.op(
        "Slice", strongest, graph.integers(0), graph.integers(filters), graph.integers(1), name=f"{name}/used"
    )


def _add_affine(
    graph: GraphBuilder, value: Value, scale: NDArray[np.float64], shift: NDArray[np.float64], name: str
) -> Value:
    """``scale · value + shift`` per channel of ``[batch, channels, frames]``."""
    scaled = graph.op("Mul", value, graph.weight(scale[:, None], f"{name}/scale"), name=f"{name}/scaled")
    return graph.op("Add", scaled, graph.weight(shift[:, None], f"{name}/shift"), name=f"{name}/normalised")


def _add_dense(graph: GraphBuilder, pool: Value, weights: MusicnnWeights) -> Value:
    """The penultimate layer ``[batch, 200]`` from the pooled channels, ordered mean, then max."""
    kernel = weights.dense_kernel * weights.pool_scale[:, None]
    bias = weights.dense_bias + weights.pool_shift @ weights.dense_kernel
    # The checkpoint's rows alternate: max of channel 0, mean of channel 0, max of channel 1, ...
    mean_then_max = np.concatenate([kernel[1::2], kernel[0::2]], axis=0)
    active = graph.op("Relu", _add_linear(graph, pool, mean_then_max, bias, "dense/linear"), name="dense/relu")
    scaled = graph.op("Mul", active, graph.weight(weights.dense_scale, "dense/scale"), name="dense/scaled")
    return graph.op("Add", scaled, graph.weight(weights.dense_shift, "dense/shift"), name="dense/normalised")


def _add_linear(
    graph: GraphBuilder, value: Value, kernel: NDArray[np.float64], bias: NDArray[np.float64], name: str
) -> Value:
    return graph.op(
        "Gemm", value, graph.weight(kernel, f"{name}/kernel"), graph.weight(bias, f"{name}/bias"), name=name
    )
