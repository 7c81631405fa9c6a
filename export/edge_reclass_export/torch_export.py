"""From a torch module to checked ONNX bytes: opset 18, dynamic batch, float32 at both ends.

``export_module`` makes one graph; ``export_precisions`` makes the graphs of an encoder and proves each against
torch in float32, on the inputs of the reference vectors and on steady tones, at a batch of 1, of 3 and of the maximum.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edge_reclass.bundle import ReferenceVectors, synthesise
from edge_reclass.cascade import DEFAULT_BATCH
from edge_reclass.host import usable_cpus
from edge_reclass_export.errors import ContractError, ParityError
from edge_reclass_export.onnx_writer import BATCH, OPSET, GraphContract, model_bytes
from edge_reclass_export.parity import SEED, Agreement, Tolerance, open_graph, require_parity
from edge_reclass_export.precision import FLOAT16_MAX, EncoderModule, half_precision, largest_value

__all__ = [
    "FP16",
    "FP32",
    "Precision",
    "Progress",
    "TorchExport",
    "export_module",
    "export_precisions",
    "mute",
    "plain_agreement",
    "steady_tones",
]

Precision = Literal["fp32", "fp16"]
Progress: TypeAlias = Callable[[str], None]
"""Gets a line for people at the end of each step."""


def mute(_: str) -> None:
    """No progress."""


TONES_HZ = (220.0, 1_000.0, 3_000.0)
"""Steady tones at full scale: in a trained network they drive single channels a hundred times beyond the others."""


FP32 = Tolerance(cosine=0.999_999, relative=1e-3, max_abs=float("inf"))
FP16 = Tolerance(cosine=0.999_9, relative=2e-2, max_abs=float("inf"))
"""What every torch recipe has to keep; a recipe may ask for more."""

_UNWANTED = ("IsNaN", "IsInf", "Attention", "STFT", "If", "Loop")
"""Guards that cost and prove nothing, operators that TensorRT or a CUDA provider lacks, and control flow."""


@dataclass(frozen=True)
class TorchExport:
    """The graphs of one encoder by precision, its reference vectors (of the float32 graph), and what was proved.

    ``parity`` is plain data for a manifest's provenance: per precision and batch the cosine, relative and
    absolute error against torch in float32; for fp16 also the largest value inside its body and its islands.
    """

    models: Mapping[Precision, bytes]
    reference: ReferenceVectors
    parity: Mapping[str, Mapping[str, object]]


def export_module(
    module: EncoderModule,
    *,
    name: str,
    window_samples: int,
    dim: int,
    precision: Precision = "fp32",
    islands: Sequence[str] = (),
    notice: str = "",
) -> bytes:
    """One graph ``waveform[batch, window_samples] → embedding[batch, dim]`` of a float32 ``module``.

    ``islands``: see ``precision.half_precision``; only for fp16. ``notice``: copyright and licence of the weights.
    Raises ``ContractError`` where the graph breaks the writer's contract, has control flow, NaN guards or an
    operator that is unwanted, or not exactly one LayerNormalization per ``torch.nn.LayerNorm`` of the module.
    """
    chosen = half_precision(module, islands) if precision == "fp16" else module
    model = _convert(chosen, name, window_samples)
    found = Counter(node.op_type for node in model.graph.node)
    if unwanted := {op: found[op] for op in _UNWANTED if found[op]}:
        raise ContractError(f"graph {name!r} has the unwanted operators {unwanted}")
    norms = sum(isinstance(part, nn.LayerNorm) for part in chosen.modules())
    if found["LayerNormalization"] != norms:
        raise ContractError(
            f"graph {name!r} has {found['LayerNormalization']} LayerNormalization operators, the module has {norms}"
        )
    return model_bytes(model, expect=GraphContract.encoder(window_samples, dim), notice=notice, consume=True)


def export_precisions(
    module: EncoderModule,
    *,
    name: str,
    rate: int,
    window_samples: int,
    dim: int,
    precisions: Sequence[Precision] = ("fp32", "fp16"),
    islands: Sequence[str] = (),
    wider_islands: Sequence[Sequence[str]] = (),
    tolerances: Mapping[Precision, Tolerance] | None = None,
    max_batch: int = DEFAULT_BATCH,
    notice: str = "",
    progress: Progress = mute,
) -> TorchExport:
    """All graphs of an encoder, each proved against torch in float32.

    The inputs are those of reference vectors and ``steady_tones``. ``precisions`` begins with fp32, whose outputs are
    the reference vectors. Where fp16 with ``islands`` does not hold, each of ``wider_islands`` is tried in turn. Raises
    what ``export_module`` raises, ``ParityError`` where a graph is outside its tolerance or would overflow in float16,
    and ``EngineError`` where ONNX Runtime refuses it.
    """
    if not precisions or precisions[0] != "fp32":
        raise ValueError(f"expected fp32 first, got {list(precisions)}")
    bounds: dict[Precision, Tolerance] = {"fp32": FP32, "fp16": FP16, **(tolerances or {})}
    made = synthesise(rate, window_samples, SEED)
    inputs = np.concatenate([made, steady_tones(rate, window_samples)])
    expected, peak = _torch_answers(module, inputs, islands)
    if expected.shape != (len(inputs), dim):
        raise ContractError(f"module {name!r} gives {list(expected.shape)}, expected {[len(inputs), dim]}")
    if not np.isfinite(expected).all():
        raise ParityError(f"{name}: the network gives NaN or infinity for a reference input: the weights are damaged")

    def make(precision: Precision, kept: Sequence[str]) -> tuple[bytes, dict[int, Agreement], NDArray[np.float32]]:
        model = export_module(
            module,
            name=name,
            window_samples=window_samples,
            dim=dim,
            precision=precision,
            islands=kept,
            notice=notice,
        )
        progress(f"{precision} graph made, {len(model) / 1e6:.0f} MB")
        return model, *_prove(model, inputs, expected, bounds[precision], max_batch, precision)

    models: dict[Precision, bytes] = {}
    parity: dict[str, dict[str, object]] = {}
    embedding = expected
    for precision in precisions:
        extra: dict[str, object] = {}
        choices = [islands, *wider_islands] if precision == "fp16" else [()]
        for kept in choices:
            try:
                if precision == "fp16":
                    value = peak if kept is islands else _torch_answers(module, inputs, kept)[1]
                    _require_range(value)
                    extra = {"largest_value": float(f"{value:.4g}")}
                    extra |= {"float32_islands": list(kept)} if kept else {}
                models[precision], figures, answers = make(precision, kept)
                break
            except ParityError:
                if kept is choices[-1]:
                    raise
        parity[precision] = {f"batch_{batch}": plain_agreement(found) for batch, found in figures.items()} | extra
        worst = min(found.cosine for found in figures.values())
        kept_float32 = f", in float32: {', '.join(map(str, kept))}" if kept else ""
        progress(f"{precision} proved at a batch of {', '.join(map(str, figures))}: cosine {worst:.7f}{kept_float32}")
        if precision == "fp32":
            embedding = answers
    return TorchExport(models, ReferenceVectors(rate, window_samples, SEED, embedding[: len(made)]), parity)


def steady_tones(rate: int, samples: int) -> NDArray[np.float32]:
    """``TONES_HZ`` below half the ``rate`` as float32[tones, samples] at full scale: inputs of the proof only."""
    turns = 2.0 * np.pi / rate * np.arange(samples)
    tones: NDArray[np.float32] = np.stack([np.sin(hz * turns) for hz in TONES_HZ if hz < rate / 2]).astype(np.float32)
    return tones


def _require_range(value: float) -> None:
    if value > FLOAT16_MAX:
        raise ParityError(
            f"the fp16 graph would overflow: a value of {value:.4g} inside the network, float16 holds {FLOAT16_MAX:g};"
            " keep more of it in float32"
        )


def _prove(
    model: bytes,
    inputs: NDArray[np.float32],
    expected: NDArray[np.float32],
    tolerance: Tolerance,
    max_batch: int,
    what: str,
) -> tuple[dict[int, Agreement], NDArray[np.float32]]:
    """Agreement by batch, and the graph's answers to ``inputs`` (the batch of the maximum, cut or completed)."""
    figures: dict[int, Agreement] = {}
    run = open_graph(model, threads=usable_cpus())
    answers = np.empty_like(expected)
    for batch in dict.fromkeys((1, min(3, max_batch), max_batch)):
        rows = np.arange(batch) % len(inputs)
        got = run(inputs[rows])[0]
        figures[batch] = require_parity(
            expected[rows], got, tolerance, f"the {what} graph (ONNX Runtime, batch {batch}) of the torch module"
        )
        answers[rows] = got
    for first in range(max_batch, len(inputs), max_batch):
        answers[first : first + max_batch] = run(inputs[first : first + max_batch])[0]
    if max_batch < len(inputs):
        require_parity(expected, answers, tolerance, f"the {what} graph (ONNX Runtime, all inputs) of the torch module")
    return figures, answers


def _torch_answers(
    module: EncoderModule, inputs: NDArray[np.float32], islands: Sequence[str]
) -> tuple[NDArray[np.float32], float]:
    """The module's embeddings, and the largest value inside its body outside ``islands``."""
    rows, peak = [], 0.0
    with torch.inference_mode():
        for row in inputs:  # one at a time: memory, and no effect of the batch
            tokens, largest = largest_value(module, module.front(torch.from_numpy(row[None])), islands)
            rows.append(module.pool(tokens))
            peak = max(peak, largest)
    answers: NDArray[np.float32] = torch.cat(rows).numpy()
    return answers, peak


def plain_agreement(found: Agreement) -> dict[str, float]:
    """Four significant digits; a cosine as its distance from 1 would be harder to read."""
    plain = {key: float(f"{value:.4g}") for key, value in asdict(found).items()}
    plain["cosine"] = round(found.cosine, 9)
    return plain


def _convert(module: EncoderModule, name: str, window_samples: int) -> onnx.ModelProto:
    waveform = torch.zeros(2, window_samples)  # a batch of 1 would be taken for a constant
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (waveform,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["waveform"],
            output_names=["embedding"],
            dynamic_shapes=({0: torch.export.Dim(BATCH, min=1, max=1024)},),
            verbose=False,
        )
    if program is None:
        raise ContractError(f"torch.onnx.export gave no program for {name!r}")
    model: onnx.ModelProto = program.model_proto
    # Asked for one opset, the exporter may silently stay at another.
    if versions := [entry.version for entry in model.opset_import if entry.domain == "" and entry.version != OPSET]:
        raise ContractError(f"torch {torch.__version__} exported {name!r} with opset {versions[0]}, expected {OPSET}")
    model.graph.name = name
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in used | {""}]:
        model.opset_import.remove(entry)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecated calls and prints its progress to standard output."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
