"""Stage ``encoders``: every encoder at every batch size, the project's backends and torch by turns in one process.

Device time is the computation by CUDA events; host time is end to end, from the batch in host memory to the embeddings
there. ONNX Runtime shows no clock of its own, so its device time is absent and its ratios are the host's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch

from edge_reclass.bundle import agreement
from gpu_check.ceilings import plain_float32
from gpu_check.contenders import Contender, GraphContender, torch_contenders
from gpu_check.geometry import Encoder, encoders
from gpu_check.inputs import batch_of
from gpu_check.journal import Journal, NotHere, load_record
from gpu_check.settings import Settings
from gpu_check.subjects import Subject, Subjects
from gpu_check.timing import Samples, by_turns

__all__ = ["rated", "run"]

_ORACLE = "torch eager fp32"


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    plain_float32()
    record = load_record(settings.state / "records" / "ceilings.json") or {"items": {}}
    ceilings = {
        name.removeprefix("matmul "): item["result"]["value"]
        for name, item in record["items"].items()
        if name.startswith("matmul ") and item["status"] == "ok"
    }
    with Subjects(settings) as subjects:
        for encoder in encoders(settings):
            with ExitStack() as opened:
                ready: dict[str, Contender | str] = {}
                for batch in settings.batches:
                    # Compiling for one batch size can take a minute.
                    expect = 3.0 if settings.tiny else 90.0
                    found = journal.do(
                        f"{encoder.name} {batch}",
                        partial(_measure, settings, encoder, batch, ready, subjects, opened, ceilings),
                        expect=expect,
                    )
                    _show(found)
                del ready
            gc.collect()
            if settings.device == "cuda":
                torch.cuda.empty_cache()


def _measure(
    settings: Settings,
    encoder: Encoder,
    batch: int,
    ready: dict[str, Contender | str],
    subjects: Subjects,
    opened: ExitStack,
    ceilings: dict[str, float],
) -> dict[str, Any]:
    subjects.entry(encoder)  # nothing to measure before it is exported
    if not ready:
        _open(settings, encoder, ready, subjects, opened)
    rows = batch_of(encoder, batch)
    running: dict[str, Contender] = {}
    wrong: dict[str, str] = {name: reason for name, reason in ready.items() if isinstance(reason, str)}
    for name, contender in ready.items():
        if isinstance(contender, str):
            continue
        try:
            contender.prepare(rows)
            running[name] = contender
        except Exception as error:  # too little memory at this batch size, or torch.compile gave up: the others go on
            wrong[name] = f"{type(error).__name__}: {error}"[:500]
            if settings.device == "cuda":
                torch.cuda.empty_cache()
    samples = by_turns({name: contender.once for name, contender in running.items()}, settings.seconds)
    answers = {name: contender.answer() for name, contender in running.items()}
    return {
        "encoder": encoder.name,
        "batch": batch,
        "flops": encoder.flops * batch,
        "contenders": rated(samples, encoder.flops * batch, ceilings, _agreements(answers))
        | {name: {"error": reason} for name, reason in wrong.items()},
    }


def _open(
    settings: Settings, encoder: Encoder, ready: dict[str, Contender | str], subjects: Subjects, opened: ExitStack
) -> None:
    def graph_contender(subject: Subject) -> GraphContender:
        graph = subject.open(max(settings.batches))
        opened.callback(graph.close)
        return GraphContender(graph)

    makers: dict[str, Callable[[], Contender]] = {}
    for subject in subjects.of(encoder):
        makers[subject.name] = partial(graph_contender, subject)
    makers |= torch_contenders(encoder, settings.device, settings.compile_mode)
    for name, make in makers.items():
        try:
            ready[name] = make()
        except NotHere as reason:
            ready[name] = f"not here: {reason}"
        except Exception as error:
            ready[name] = f"{type(error).__name__}: {error}"[:500]


def _agreements(answers: dict[str, np.ndarray[Any, Any]]) -> dict[str, dict[str, float]]:
    """Each contender's answers against float32 torch's: who is fast and wrong is not fast."""
    if _ORACLE not in answers:
        return {}
    found = {name: agreement(answers[_ORACLE], rows) for name, rows in answers.items()}
    return {name: {"cosine": one.cosine, "relative": min(one.relative, 1e30)} for name, one in found.items()}


def rated(
    samples: dict[str, Samples],
    flops: float,
    ceilings: dict[str, float],
    agreements: dict[str, dict[str, float]],
) -> dict[str, dict[str, Any]]:
    """Medians and samples, how many times torch's time is this one's, and the share of the matrix ceiling.

    Ratios are of host times, end to end. The rate is by the device's clock where there is one, else by the host's.
    """
    plain = {name: one.to_plain() for name, one in samples.items()}
    result = {}
    for name, one in plain.items():
        seconds = (one["device_ms"] if one["device_ms"] is not None else one["host_ms"]) / 1e3
        ceiling = ceilings.get(name.rpartition(" ")[2])
        tflops = flops / seconds / 1e12
        result[name] = one | {
            "torch_ratios": {
                other.removeprefix("torch "): round(found["host_ms"] / one["host_ms"], 4)
                for other, found in plain.items()
                if other.startswith("torch ") and not name.startswith("torch ")
            },
            "torch_ratios_device": {
                other.removeprefix("torch "): round(found["device_ms"] / one["device_ms"], 4)
                for other, found in plain.items()
                if other.startswith("torch ")
                and not name.startswith("torch ")
                and found["device_ms"] is not None
                and one["device_ms"] is not None
            },
            "tflops": tflops,
            "tflops_by": "host" if one["device_ms"] is None else "device",
            "ceiling_tflops": ceiling,
            "of_ceiling": None if ceiling is None else tflops / ceiling,
            "against_float32_torch": agreements.get(name),
        }
    return result


def _show(found: Any) -> None:
    for name, one in (found or {}).get("contenders", {}).items():
        where = f"  {found['encoder']}, batch {found['batch']}, {name}"
        if "error" in one:
            print(f"{where}: {one['error'][:200]}")
            continue
        device = "–" if one["device_ms"] is None else f"{one['device_ms']:.3f} ms"
        print(
            f"{where}: host {one['host_ms']:.3f} ms, device {device}, {one['tflops']:.3g} TFLOP/s, {one['runs']} runs"
        )
