"""Measures what docs/notes/mert.md states: a full-size export with untrained weights, then its latency.

PYTHONPATH=tests python -m export.measure_mert 330m BUNDLE [THREADS]
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edge_reclass.bundle.reference import synthesise
from edge_reclass_export.bundle_writer import put_encoder
from edge_reclass_export.heads import random_head
from edge_reclass_export.parity import open_graph
from edge_reclass_export.recipe import FMA_GENRES
from edge_reclass_export.recipes.mert import MertOptions, mert_encoder, random_source
from edge_reclass_export.recipes.mert_model import build

RUNS = {1: 7, 6: 3}


def peak_gigabytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def export(size: str, root: Path) -> None:
    """Time, memory and file sizes of `export mert --random-init SIZE`."""
    before = peak_gigabytes()
    began, cpu = time.perf_counter(), time.process_time()
    source = random_source(size)
    encoder = mert_encoder(source, MertOptions())
    head = random_head(encoder.dim, len(FMA_GENRES))
    put_encoder(root, encoder, head=head, head_source={"random_init": True}, genres=FMA_GENRES)
    print(
        f"{size}: exported in {time.perf_counter() - began:.0f} s ({time.process_time() - cpu:.0f} s of CPU),"
        f" peak {peak_gigabytes():.2f} GB (imports {before:.2f} GB)"
    )
    for file in sorted((root / "encoders").glob("*.onnx")):
        print(f"  {file.name}: {file.stat().st_size / 1e6:.1f} MB")
    print(f"  parity: {encoder.provenance['parity']}")


def latency(size: str, root: Path, threads: int) -> None:
    """Median milliseconds per batch, torch and the graphs by turns."""
    source = random_source(size)
    module = build(source.config, source.weights, normalise=True, layer="last")
    audio = synthesise(source.preprocessing.sampling_rate, 120_000, 1)[:6]
    torch.set_num_threads(threads)
    files = sorted((root / "encoders").glob("*.onnx"))
    runs: dict[str, Callable[[np.ndarray], object]] = {
        file.name: open_graph(file.read_bytes(), threads=threads) for file in files
    }

    def by_torch(rows: np.ndarray) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(rows)).numpy()

    runs["torch float32"] = by_torch
    for batch, count in RUNS.items():
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(count + 1):
            for name, run in runs.items():
                began = time.perf_counter()
                run(audio[:batch])
                times[name].append(time.perf_counter() - began)
        medians = {name: float(np.median(seconds[1:])) for name, seconds in times.items()}
        for name, median in medians.items():
            print(
                f"{size}: {batch} windows of 5 s, {threads} threads, {name}: median {1e3 * median:.0f} ms of {count}"
                f" ({median / medians['torch float32']:.2f} of torch)"
            )


def main(arguments: list[str]) -> None:
    """Export, then latency."""
    size, root = arguments[0], Path(arguments[1])
    threads = int(arguments[2]) if len(arguments) > 2 else 2
    torch.set_num_threads(threads)
    export(size, root)
    latency(size, root, threads)


if __name__ == "__main__":
    main(sys.argv[1:])
