"""The tasks: 518 features, each encoder, a whole file; for each, edge-reclass and whoever else can do it here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Cascade
from edge_reclass.backends import open_backend
from edge_reclass.bundle import Bundle, StageEntry, WaveformEntry
from edge_reclass.cascade import choose_policy, fill_window, windows
from edge_reclass.errors import EdgeReclassError, Status, UsageError
from edge_reclass.features import Fma518
from edge_reclass.installing import pip_command
from edge_reclass_bench.peers.clips import Clip, at_rate
from edge_reclass_bench.peers.contest import OURS, Contender, Task
from edge_reclass_bench.peers.parity import close_features, close_values, same_direction
from edge_reclass_bench.policies import ensemble
from edge_reclass_bench.record import Peer

if TYPE_CHECKING:
    from torch import nn

    from edge_reclass_bench.peers.torch_encoders import Attention

_CONFIDENCE = 0.02
_FLOAT32, _BFLOAT16 = 0.9999, 0.98
"""Least cosine to our float32 embedding. Eight bits of mantissa leave two digits."""


def features_task(clips: Sequence[Clip], rate: int, resources: ExitStack) -> Task:
    """The 518 features of every clip at ``rate`` Hz on one thread, without decoding and resampling."""
    from edge_reclass_bench.peers.librosa_fma518 import librosa_fma518

    samples = [at_rate(clip, rate) for clip in clips]
    plan = resources.enter_context(Fma518(max(map(len, samples)), rate))
    ours = Contender(OURS, "edge-reclass", lambda i: plan.compute(samples[i], rate))
    librosa = Contender(
        "librosa",
        "librosa",
        lambda i: librosa_fma518(samples[i], rate).values,
        settings={"rate": f"{rate} Hz"},
        versions=_versions("librosa", "scipy", "numba"),
        agrees=close_features,
    )
    return Task(f"518 features, {rate / 1000:g} kHz", "features", _tracks(clips), ours, [librosa])


def encoder_tasks(
    bundle: Bundle, clips: Sequence[Clip], threads: int, only: Sequence[str] = ()
) -> Iterator[Task | Peer]:
    """For every encoder of ``bundle`` (or those of the stages ``only``): our CPU backend's float32 beside torch.

    A peer instead of a task says why there is nobody to compare with. A task is to be held before the next one is asked
    for: its models are released then. Raises ``UsageError`` where ``only`` names a stage without an encoder.
    """
    encoders = [stage for stage in bundle.manifest.stages if isinstance(stage.encoder, WaveformEntry)]
    names = [stage.name for stage in encoders]
    if unknown := [name for name in only if name not in names]:
        raise UsageError(f"--encoders: expected some of {', '.join(names)}, got {', '.join(unknown)}")
    for stage in encoders:
        if only and stage.name not in only:
            continue
        with ExitStack() as models:
            name = f"{stage.name}, {len(_windows(bundle, stage, clips[0]))} × {_seconds(stage)} s"
            try:
                others = _torch_contenders(bundle, stage, clips, threads)
            except UsageError as error:
                yield Peer(name=f"torch:{name}", task=name, title="transformers and torch", reason=str(error))
                continue
            ours = _our_encoder(bundle, stage, clips, threads, models)
            yield Task(name, "encoder", _tracks(clips), ours, others)
            del others


def file_task(bundle: Bundle, clips: Sequence[Clip], threads: int, resources: ExitStack) -> Task:
    """Files to the answers of all stages: our cascade, opened once, beside a loop that opens everything per file."""
    from edge_reclass_bench.peers.per_file_loop import per_file

    policy = ensemble(choose_policy(bundle))
    order = {name: i for i, name in enumerate(policy.stages)}
    missing = [stage.name for stage in bundle.manifest.stages if stage.name not in order]
    if missing:
        raise UsageError(f"{bundle.root}: the default policy never asks {', '.join(missing)}; files cannot be compared")
    cascade = resources.enter_context(Cascade.open(bundle, policy=policy, threads=threads, allow_random=True))

    def ours(i: int) -> NDArray[np.float64]:
        verdict = cascade.classify(clips[i].path)
        if verdict.status != Status.OK:
            raise EdgeReclassError(f"{clips[i].path}: cannot be compared, its status is {verdict.status}; leave it out")
        said = {report.name: report.confidence for report in verdict.stages}
        return np.array([said[stage.name] for stage in bundle.manifest.stages])

    naive = Contender(
        "per-file-loop",
        "librosa.load, librosa's features and new ONNX Runtime sessions per file",
        lambda i: per_file(bundle, clips[i].path),
        versions=_versions("librosa", "onnxruntime"),
        agrees=close_values(_CONFIDENCE),
    )
    title = f"file to answers, {bundle.name}"
    return Task(title, "file", _tracks(clips), Contender(OURS, "edge-reclass", ours), [naive])


def _tracks(clips: Sequence[Clip]) -> list[int]:
    return [clip.track for clip in clips]


def _torch_contenders(bundle: Bundle, stage: StageEntry, clips: Sequence[Clip], threads: int) -> list[Contender]:
    missing = [package for package in ("torch", "transformers") if find_spec(package) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} is not installed: {pip_command()} install torch transformers")
    import torch

    from edge_reclass_bench.peers.torch_encoders import torch_encoder

    provenance = bundle.manifest.provenance.get(stage.name) or {}
    torch.set_num_threads(threads)
    rows = [_windows(bundle, stage, clip) for clip in clips]
    forms: tuple[tuple[str, Attention, torch.dtype, float], ...] = (
        ("torch eager", "eager", torch.float32, _FLOAT32),
        ("torch sdpa", "sdpa", torch.float32, _FLOAT32),
        ("torch sdpa bf16", "sdpa", torch.bfloat16, _BFLOAT16),
    )
    contenders = []
    for title, attention, dtype, least in forms:
        model = torch_encoder(provenance, attention, dtype)
        contenders.append(
            Contender(
                title.replace(" ", "-"),
                title,
                partial(_answer, model, rows),
                settings={"threads": str(threads)},
                versions=_versions("torch", "transformers"),
                agrees=same_direction(least),
            )
        )
    return contenders


def _answer(model: nn.Module, rows: Sequence[NDArray[np.float32]], clip: int) -> NDArray[np.float32]:
    from edge_reclass_bench.peers.torch_encoders import mean_embedding

    return mean_embedding(model, rows[clip])


def _our_encoder(
    bundle: Bundle, stage: StageEntry, clips: Sequence[Clip], threads: int, resources: ExitStack
) -> Contender:
    encoder = _encoder(stage)
    rows = [_windows(bundle, stage, clip) for clip in clips]
    backend = resources.enter_context(open_backend("cpu", threads=threads))
    graph = backend.open_graph(
        bundle.path(encoder.files["fp32"]),
        input_name="waveform",
        output_name="embedding",
        width=encoder.window_samples,
        output_width=encoder.dim,
        max_batch=max(map(len, rows)),
    )
    resources.callback(graph.close)

    def run(i: int) -> NDArray[np.float32]:
        count = len(rows[i])
        graph.input[:count] = rows[i]
        embedding: NDArray[np.float32] = graph.run(count).mean(axis=0)
        return embedding

    return Contender(OURS, "edge-reclass", run, settings={"threads": str(threads)})


def _windows(bundle: Bundle, stage: StageEntry, clip: Clip) -> NDArray[np.float32]:
    """The windows that the runtime would give the encoder for this clip: float32[n, window]."""
    encoder = _encoder(stage)
    samples = at_rate(clip, encoder.rate)
    seconds = (stage.excerpt or bundle.manifest.excerpt).seconds
    if seconds is not None:
        samples = samples[: round(seconds * encoder.rate)]
    starts = windows(len(samples), encoder.window_samples, encoder.hop_samples, encoder.short)
    rows = np.empty((len(starts), encoder.window_samples), np.float32)
    for row, start in zip(rows, starts, strict=True):
        fill_window(samples, start, encoder.short, row)
    return rows


def _encoder(stage: StageEntry) -> WaveformEntry:
    if not isinstance(stage.encoder, WaveformEntry):
        raise TypeError(f"{stage.name}: expected a waveform encoder")
    return stage.encoder


def _seconds(stage: StageEntry) -> str:
    encoder = _encoder(stage)
    return f"{encoder.window_samples / encoder.rate:.3g}"


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
