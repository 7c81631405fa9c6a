"""YAMNet's weights at any width: as Keras' HDF5 file and as TensorFlow Lite files, with the names of the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import flatbuffers
import h5py
import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import synthesise
from export.yamnet_reference import STRIDE_TWO, log_mel, normalised, same_convolution

Array = NDArray[np.float64]
Arrays = dict[str, Array]

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
CONV, DEPTHWISE, DEQUANTIZE, DENSE = 3, 4, 6, 9
FLOAT32, FLOAT16, INT32, INT8 = 0, 1, 2, 9


@cache
def _arrays(share: int, classes: int, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    made: Arrays = {}
    images = [log_mel(row)[None] for row in synthesise(16_000, 15_600, seed)]

    def put(layer: str, part: str, values: Array) -> None:
        made[f"{layer}/{layer}/{part}:0"] = values.astype(np.float32).astype(np.float64)

    def convolution(layer: str, kernel: str, *shape: int, stride: int = 1) -> None:
        nonlocal images
        put(layer, kernel, random.standard_normal(shape) + (0.7 if shape[0] == 3 else 0.0))
        images = [same_convolution(image, layer, made, stride) for image in images]
        together = np.concatenate([image.reshape(len(image), -1) for image in images], axis=1)
        beta, mean, variance = (
            1.0 + 0.3 * random.standard_normal(len(together)),
            0.2 * together.mean(1),
            (together**2).mean(1) + 0.1,
        )
        for part, values in (("beta", beta), ("moving_mean", mean), ("moving_variance", variance)):
            put(f"{layer}/bn", part, values)
        images = [normalised(image, layer, made) for image in images]

    before = 1
    for number, width in enumerate(WIDTHS, start=1):
        channels, stride = max(1, width // share), 2 if number in STRIDE_TWO else 1
        if number == 1:
            convolution("layer1/conv", "kernel", 3, 3, 1, channels, stride=stride)
        else:
            convolution(f"layer{number}/depthwise_conv", "depthwise_kernel", 3, 3, before, 1, stride=stride)
            convolution(f"layer{number}/pointwise_conv", "kernel", 1, 1, before, channels)
        before = channels
    put("logits", "kernel", random.standard_normal((before, classes)) / np.sqrt(before))
    put("logits", "bias", 0.3 * random.standard_normal(classes))
    return made


def arrays(share: int = 16, classes: int = 5, seed: int = 0) -> Arrays:
    """Tensors by their names in the file; ``share`` (at most 16) divides the widths; no tensor is neutral.

    Kernels are random and smooth; variances are those of some audio. Otherwise so deep a network hears nothing, or only
    the rounding of float32 in the quiet bands beside a loud one.
    """
    return {name: values.copy() for name, values in _arrays(share, classes, seed).items()}


def write_h5(path: Path, tensors: Mapping[str, Array]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = b"tensorflow"
        for name, values in tensors.items():
            file.create_dataset(name, data=np.asarray(values, np.float32))
    return path


def folded(tensors: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    """Kernel and bias of each layer as TensorFlow Lite has them: ``[out, h, w, in]``, depthwise ``[1, h, w, out]``."""
    made = []
    for number in range(1, 15):
        for part in ["conv"] if number == 1 else ["depthwise_conv", "pointwise_conv"]:
            layer = f"layer{number}/{part}"
            norm = {
                key: tensors[f"{layer}/bn/{layer}/bn/{key}:0"] for key in ("beta", "moving_mean", "moving_variance")
            }
            scale = 1 / np.sqrt(norm["moving_variance"] + 1e-4)
            if part == "depthwise_conv":
                kernel = np.moveaxis(tensors[f"{layer}/{layer}/depthwise_kernel:0"], 3, 0) * scale
            else:
                kernel = np.moveaxis(tensors[f"{layer}/{layer}/kernel:0"] * scale, 3, 0)
            made.append((kernel, norm["beta"] - norm["moving_mean"] * scale))
    made.append((tensors["logits/logits/kernel:0"].T, tensors["logits/logits/bias:0"]))
    return made


def write_tflite(path: Path, layers: Sequence[tuple[Array, Array | None]], form: str = "channel") -> Path:
    """``form``: float32, float16, ``tensor`` (int8, one step each, behind DEQUANTIZE) or ``channel`` (int8, many)."""
    builder = flatbuffers.Builder(1 << 16)
    tensors: list[int] = []
    buffers: list[int] = [_table(builder, [])]

    def tensor(values: NDArray[Any], kind: int, quantisation: int = 0, data: bool = True) -> int:
        raw = np.frombuffer(values.tobytes(), np.uint8)
        buffers.append(_table(builder, [(0, "offset", builder.CreateNumpyVector(raw))] if data else []))
        shape = builder.CreateNumpyVector(np.asarray(values.shape, np.int32))
        fields = [(0, "offset", shape), (1, "byte", kind), (2, "uint", len(buffers) - 1)]
        fields += [(3, "offset", builder.CreateString("weights")), (4, "offset", quantisation)]
        tensors.append(_table(builder, fields))
        return len(tensors) - 1

    operators = []
    codes = {CONV: 0, DEPTHWISE: 1, DEQUANTIZE: 2, DENSE: 3}

    def operator(code: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        places = [builder.CreateNumpyVector(np.asarray(one, np.int32)) for one in (inputs, outputs)]
        operators.append(
            _table(builder, [(0, "uint", codes[code]), (1, "offset", places[0]), (2, "offset", places[1])])
        )

    def kernel(values: Array, depthwise: bool) -> int:
        if form in ("float32", "float16"):
            return tensor(values.astype(form), FLOAT16 if form == "float16" else FLOAT32)
        axis = 3 if depthwise else 0
        others = tuple(number for number in range(values.ndim) if number != axis)
        step = np.abs(values).max(others if form == "channel" else None, keepdims=True) / 127
        steps = builder.CreateNumpyVector(step.astype(np.float32).ravel())
        zeros = builder.CreateNumpyVector(np.zeros(step.size, np.int64))
        fields = [(2, "offset", steps), (3, "offset", zeros), (6, "int", axis)]
        stored = tensor(np.round(values / step).astype(np.int8), INT8, _table(builder, fields))
        if form == "tensor" and depthwise:
            operator(DEQUANTIZE, [stored], [tensor(values, FLOAT32, data=False)])
            return len(tensors) - 1
        return stored

    computed = tensor(np.zeros((1, 2)), FLOAT32, data=False)
    operator(DENSE, [computed, tensor(np.ones((3, 2), np.float32), FLOAT32)], [computed])  # of the front end
    for values, bias in layers:
        depthwise = values.ndim == 4 and len(values) == 1 and values.shape[1] > 1
        code = DENSE if values.ndim == 2 else DEPTHWISE if depthwise else CONV
        inputs = [computed, kernel(values, depthwise)]
        inputs.append(-1 if bias is None else tensor(bias.astype(np.float32), FLOAT32))
        operator(code, inputs, [computed])
    graph = _table(builder, [(0, "offset", _tables(builder, tensors)), (3, "offset", _tables(builder, operators))])
    known = [_table(builder, [(0, "byte", code), (3, "int", code)]) for code in codes]
    model = [(1, _tables(builder, known)), (2, _tables(builder, [graph])), (4, _tables(builder, buffers))]
    builder.Finish(_table(builder, [(slot, "offset", value) for slot, value in model]), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _table(builder: flatbuffers.Builder, fields: Sequence[tuple[int, str, int]]) -> int:
    builder.StartObject(8)
    put = {
        "offset": builder.PrependUOffsetTRelativeSlot,
        "byte": builder.PrependInt8Slot,
        "uint": builder.PrependUint32Slot,
        "int": builder.PrependInt32Slot,
    }
    for slot, kind, value in fields:
        put[kind](slot, value, 0)
    return int(builder.EndObject())


def _tables(builder: flatbuffers.Builder, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())
