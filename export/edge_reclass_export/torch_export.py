"""From a torch module to checked ONNX bytes: opset 18, dynamic batch, float32 at both ends.

``export_module`` makes one graph; ``export_encoder`` makes the graphs of an encoder and proves each against
torch in float32, on the inputs of the reference vectors and on steady tones, at a batch of 1, of 3 and of the maximum.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Literal, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edge_reclass.bundle import Agreement, ReferenceVectors, synthesise
from edge_reclass.cascade import DEFAULT_BATCH
from edge_reclass.host import usable_cpus
from edge_reclass_export.engine.verify import Limits
from edge_reclass_export.errors import GraphError, ParityError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.onnx_writer import BATCH, OPSET, GraphInterface, model_bytes
from edge_reclass_export.parity import SEED, open_graph, require_parity
from edge_reclass_export.precision import FLOAT16_MAX, EncoderModule, half_precision, largest_value

Precision = Literal["fp32", "fp16"]
Progress: TypeAlias = Callable[[str], None]
"""Gets a line for people at the end of each step."""


TONES_HZ = (220.0, 1_000.0, 3_000.0)
"""Steady tones at full scale: in a trained network they drive single channels a hundred times beyond the others."""


TOLERANCES: dict[Precision, Limits] = {
    "fp32": Limits(cosine=0.999_999, relative=1e-3),
    "fp16": Limits(cosine=0.999_9, relative=2e-2),
}
"""What every torch recipe has to keep."""

_UNWANTED = ("IsNaN", "IsInf", "Attention", "STFT", "If", "Loop")
"""Guards that cost and prove nothing, operators that TensorRT or a CUDA provider lacks, and control flow."""


def export_module(
    module: EncoderModule,
    *,
    name: str,
    window_samples: int,
    dim: int,
    precision: Precision = "fp32",
    float32_regions: Sequence[str] = (),
    notice: str = "",
) -> bytes:
    """One graph ``waveform[batch, window_samples] → embedding[batch, dim]`` of a float32 ``module``.

    ``float32_regions``: see ``precision.half_precision``; only for fp16. ``notice``: copyright and licence of the
    weights. Raises ``GraphError`` where the graph breaks the writer's rules, has control flow, NaN guards or an
    operator that is unwanted, or not exactly one LayerNormalization per ``torch.nn.LayerNorm`` of the module.
    """
    chosen = half_precision(module, float32_regions) if precision == "fp16" else module
    model = _convert(chosen, name, window_samples)
    found = Counter(node.op_type for node in model.graph.node)
    if unwanted := {op: found[op] for op in _UNWANTED if found[op]}:
        raise GraphError(f"graph {name!r} has the unwanted operators {unwanted}")
    norms = sum(isinstance(part, nn.LayerNorm) for part in chosen.modules())
    if found["LayerNormalization"] != norms:
        raise GraphError(
            f"graph {name!r} has {found['LayerNormalization']} LayerNormalization operators, the module has {norms}"
        )
    return model_bytes(model, expect=GraphInterface.encoder(window_samples, dim), notice=notice, consume=True)


def export_encoder(
    module: EncoderModule,
    *,
    name: str,
    rate: int,
    window_samples: int,
    dim: int,
    stage: str = "",
    short: Literal["repeat", "repeat_centered"] = "repeat",
    provenance: Mapping[str, object] | None = None,
    title: str = "",
    licence: str = "",
    float32_regions: Sequence[Sequence[str]] = (),
    max_batch: int = DEFAULT_BATCH,
    progress: Progress = lambda _: None,
) -> ExportedEncoder:
    """An encoder in float32 and float16, each graph proved against torch in float32; windows do not overlap.

    The inputs are those of reference vectors and ``steady_tones``; the float32 graph's outputs are the reference
    vectors. Provenance gets ``parity``: per precision and batch the cosine, relative and absolute error; for fp16 also
    the largest value inside its body outside of its float32 regions.

    Args:
        module: the network in float32.
        name: of the graph and the recipe.
        rate: Hz of the input.
        window_samples: length of the input.
        dim: width of the embedding.
        stage: the stage's name by default, where it is not ``name``.
        short: what the runtime does with less than a window.
        provenance: where the weights are from (``source``, ``licence``), and the network's options.
        title: the network and its authors, for the notice inside the graphs.
        licence: text that has to travel with the weights, if any.
        float32_regions: Patterns of the body's submodules that stay float32 (``precision.half_precision``): each entry
            is tried in turn where plain float16 does not hold.
        max_batch: the largest batch that is proved.
        progress: gets a line after each step.

    Raises:
        GraphError: as ``export_module`` raises it, or the module gives another width than ``dim``.
        ParityError: a graph is outside its tolerance or would overflow in float16.
        EngineError: ONNX Runtime refuses a graph.
    """
    provenance = dict(provenance or {})
    terms = licence or provenance.get("licence", "")
    notice = f"{title}, weights from {provenance.get('source')}\n\n{terms}" if title else ""
    made = synthesise(rate, window_samples, SEED)
    inputs = np.concatenate([made, steady_tones(rate, window_samples)])
    expected, peak = _torch_answers(module, inputs, ())
    if expected.shape != (len(inputs), dim):
        raise GraphError(f"module {name!r} gives {list(expected.shape)}, expected {[len(inputs), dim]}")
    if not np.isfinite(expected).all():
        raise ParityError(f"{name}: the network gives NaN or infinity for a reference input: the weights are damaged")

    def prove(precision: Precision, kept: Sequence[str]) -> tuple[bytes, dict[str, object], NDArray[np.float32]]:
        model = export_module(
            module,
            name=name,
            window_samples=window_samples,
            dim=dim,
            precision=precision,
            float32_regions=kept,
            notice=notice,
        )
        progress(f"{precision} graph made, {len(model) / 1e6:.0f} MB")
        found, answers = _prove(model, inputs, expected, TOLERANCES[precision], max_batch, precision)
        worst = min(figures.cosine for figures in found.values())
        region = f", in float32: {', '.join(kept)}" if kept else ""
        progress(f"{precision} proved at a batch of {', '.join(map(str, found))}: cosine {worst:.7f}{region}")
        return model, {f"batch_{batch}": plain_agreement(figures) for batch, figures in found.items()}, answers

    model, figures, embedding = prove("fp32", ())
    batches = [int(key.removeprefix("batch_")) for key in figures]
    choices: list[Sequence[str]] = [(), *float32_regions]
    for kept in choices:
        try:
            value = _torch_answers(module, inputs, kept)[1] if kept else peak
            if value > FLOAT16_MAX:
                raise ParityError(
                    f"the fp16 graph would overflow: a value of {value:.4g} inside the network, float16 holds"
                    f" {FLOAT16_MAX:g}; keep more of it in float32"
                )
            half, half_figures, _ = prove("fp16", kept)
            break
        except ParityError:
            if kept is choices[-1]:
                raise
    half_figures["largest_value"] = float(f"{value:.4g}")
    if kept:
        half_figures["float32_islands"] = list(kept)
    return ExportedEncoder(
        name=stage or name,
        model=model,
        rate=rate,
        window_samples=window_samples,
        hop_samples=window_samples,
        short=short,
        dim=dim,
        provenance={
            **provenance,
            "tools": {"torch": torch.__version__.partition("+")[0], "onnx": onnx.__version__},
            "parity": {"fp32": figures, "fp16": half_figures},
            "batches_proved": batches,
        },
        licence_file=f"LICENSE.{name}" if licence else "",
        licence=licence,
        others={"fp16": half},
        reference=ReferenceVectors(rate, window_samples, SEED, embedding[: len(made)]),
    )


def steady_tones(rate: int, samples: int) -> NDArray[np.float32]:
    """``TONES_HZ`` below half the ``rate`` as float32[tones, samples] at full scale: inputs of the proof only."""
    turns = 2.0 * np.pi / rate * np.arange(samples)
    tones: NDArray[np.float32] = np.stack([np.sin(hz * turns) for hz in TONES_HZ if hz < rate / 2]).astype(np.float32)
    return tones


def _prove(
    model: bytes,
    inputs: NDArray[np.float32],
    expected: NDArray[np.float32],
    tolerance: Limits,
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
    module: EncoderModule, inputs: NDArray[np.float32], float32_regions: Sequence[str]
) -> tuple[NDArray[np.float32], float]:
    """The module's embeddings, and the largest value inside its body outside ``float32_regions``."""
    rows, peak = [], 0.0
    with torch.inference_mode():
        for row in inputs:  # one at a time: memory, and no effect of the batch
            tokens, largest = largest_value(module, module.front(torch.from_numpy(row[None])), float32_regions)
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
        raise GraphError(f"torch.onnx.export gave no program for {name!r}")
    model: onnx.ModelProto = program.model_proto
    # Asked for one opset, the exporter may silently stay at another.
    if versions := [entry.version for entry in model.opset_import if entry.domain == "" and entry.version != OPSET]:
        raise GraphError(f"torch {torch.__version__} exported {name!r} with opset {versions[0]}, expected {OPSET}")
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
