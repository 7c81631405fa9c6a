"""Stage ``verify``: does every backend give the right embeddings here, at every batch size, in every row?

Against two references: the bundle's reference vectors (float32 on the exporting CPU), and the torch module in plain
float32 on this device, on inputs that no export has seen. The result's buffer is filled with NaN before each run, so
that a row that nothing wrote is found.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_reclass.backends import Graph
from edge_reclass.bundle import agreement, load_reference
from edge_reclass.engines import BatchCheck
from edge_reclass_export.engine.verify import faults
from gpu_check.ceilings import plain_float32
from gpu_check.geometry import Encoder, encoders
from gpu_check.inputs import fresh, names
from gpu_check.journal import Journal
from gpu_check.settings import Settings
from gpu_check.subjects import Subject, Subjects

__all__ = ["check", "run", "run_rows", "torch_embeddings"]

Rows = NDArray[np.float32]
_TORCH_BATCH = 4


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    plain_float32()
    with Subjects(settings) as subjects:
        for encoder in encoders(settings):
            oracle = _Oracle(settings, subjects, encoder)
            for subject in subjects.of(encoder):
                name = f"{encoder.name} {subject.name}"
                expect = 3.0 if settings.tiny else 40.0
                found = journal.do(name, partial(_verify, settings, subject, oracle), expect=expect)
                for one in (found or {}).get("checks", []):
                    print(
                        f"  {name}, batch {one['batch']}, against {one['against']}: cosine {one['cosine']:.7f},"
                        f" relative error {one['relative']:.2e}, worst row {one['worst_row']}"
                    )
            del oracle
            gc.collect()


class _Oracle:
    """Inputs of one encoder, and what is right for them; computed when first asked for."""

    def __init__(self, settings: Settings, subjects: Subjects, encoder: Encoder) -> None:
        self._settings, self._subjects, self._encoder = settings, subjects, encoder
        self._found: tuple[Rows, Rows, Rows, list[str]] | None = None

    def get(self) -> tuple[Rows, Rows, Rows, list[str]]:
        """Inputs [rows, window], float32 torch's embeddings of them, the reference's of the first rows, row names."""
        if self._found is None:
            entry, bundle = self._subjects.entry(self._encoder), self._subjects.bundle()
            if entry.reference is None:
                raise ValueError(f"{bundle.root}: {self._encoder.name} has no reference vectors")
            reference = load_reference(bundle.path(entry.reference))
            inputs = np.concatenate([reference.inputs(), fresh(self._encoder)])
            expected = torch_embeddings(self._encoder, inputs, self._settings.device)
            self._found = inputs, expected, reference.embedding, names(reference.names)
        return self._found


def torch_embeddings(encoder: Encoder, inputs: Rows, device: str) -> Rows:
    """The float32 torch module's answers on the device, TF32 off."""
    module = encoder.module().to(device)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(inputs), _TORCH_BATCH):
            rows.append(module(torch.from_numpy(inputs[start : start + _TORCH_BATCH]).to(device)).float().cpu().numpy())
    del module
    if device == "cuda":
        torch.cuda.empty_cache()
    return np.concatenate(rows)


def _verify(settings: Settings, subject: Subject, oracle: _Oracle) -> dict[str, Any]:
    graph = subject.open(max(settings.batches))
    try:
        inputs, torch_rows, reference_rows, row_names = oracle.get()
        checks = []
        for batch in settings.batches:
            order, got = run_rows(graph, inputs, batch)
            for against, expected in (
                ("reference vectors", reference_rows),
                (f"float32 torch on {settings.device}", torch_rows),
            ):
                checks.append(check(against, batch, order, got, expected, row_names, subject.precision))
        wrong = [
            f"batch {one['batch']}, {one['against']}: {one['verdict']}" for one in checks if one["verdict"] != "yes"
        ]
        return {"checks": checks, "faults": wrong}
    finally:
        graph.close()


def run_rows(graph: Graph, inputs: Rows, batch: int) -> tuple[list[int], Rows]:
    """All inputs in full batches; the last wraps around to the first. Gives each result row's input and the rows."""
    order: list[int] = []
    got = []
    for start in range(0, len(inputs), batch):
        chosen = [(start + number) % len(inputs) for number in range(batch)]
        graph.input[:batch] = inputs[chosen]
        result = graph.run(batch)
        got.append(result.copy())
        if result.flags.writeable:
            result[...] = np.nan
        order += chosen
    return order, np.concatenate(got)


def check(
    against: str, batch: int, order: list[int], got: Rows, expected: Rows, row_names: list[str], precision: str
) -> dict[str, Any]:
    """The worst row's figures over those rows that ``expected`` has, and whether they are within the limits."""
    used = [position for position, row in enumerate(order) if row < len(expected)]
    by_row = [agreement(expected[order[p]][None], got[p][None]) for p in used]
    worst = min(range(len(used)), key=lambda number: (by_row[number].cosine, -by_row[number].relative))
    position = used[worst]
    found = BatchCheck(
        batch,
        min(one.cosine for one in by_row),
        max(one.relative for one in by_row),
        max(one.max_abs for one in by_row),
        0,
        0,
        float(np.median([one.cosine for one in by_row])),
    )
    wrong = faults([found], precision)
    return {
        "against": against,
        "batch": batch,
        "rows": len(used),
        "cosine": found.cosine,
        "median_cosine": found.median_cosine,
        # JSON has no infinity; what is not a number is a fault anyway.
        "relative": min(found.relative, 1e30),
        "max_abs": min(found.max_abs, 1e30),
        "worst_row": f"{row_names[order[position]]}, row {position % batch}",
        "verdict": "; ".join(wrong) if wrong else "yes",
    }
