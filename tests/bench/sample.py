"""A record made in memory, as a run of a three-stage cascade over twelve tracks would leave it. Nothing is measured.

``make_record()`` gives the same record every time; ``slower`` and the noises make what comparisons are tested with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from edge_reclass_bench.record import (
    Absent,
    Answers,
    Environment,
    Machine,
    Measure,
    Peer,
    PolicyRecord,
    Record,
    Run,
    Series,
    Settings,
    StageFile,
    StepRecord,
    Subject,
    TrackEntry,
)

GENRES = ["Alpha", "Beta", "Gamma"]
STAGES = ["fma", "mert", "jmla"]
COST = {"fma": 45.0, "mert": 700.0, "jmla": 160.0}
"""Milliseconds per track of each stage alone."""
PARTS = {
    "fma": {"resample": 6.0, "features": 38.0, "head": 0.3, "policy": 0.02},
    "mert": {"resample": 6.0, "fill": 3.0, "run": 690.0, "head": 0.3, "policy": 0.02},
    "jmla": {"resample": 5.0, "fill": 2.0, "run": 152.0, "head": 0.3, "policy": 0.02},
}
TRACKS, PASSES, PROCESSES = 12, 4, 5
FMA = "stage/single:fma/fma/total/warm/host"
MERT = "stage/single:mert/mert/total/warm/host"
CASCADE = "single-stream/cascade/-/track/warm/host"
ENSEMBLE = "single-stream/ensemble/-/track/warm/host"
RATE = "offline/cascade/-/throughput/warm/host"
MACHINE = Machine(
    cpu="Made CPU (Maker family 1 model 2 stepping 3)",
    instructions=["avx2"],
    caches=["L2 512K"],
    cores=4,
    kernel="6.0",
    gpu="Made GPU, SM 8.7",
    driver="l4t-36.4",
    clocks="locked at 2000 MHz",
)


def make_record(
    *,
    seed: int = 1,
    noise: float = 0.02,
    between: float = 0.005,
    slower: dict[str, float] | None = None,
    device: str = "cuda",
    passes: int = PASSES,
    processes: int = PROCESSES,
) -> Record:
    """A record with every part filled.

    Args:
        seed: of the noise.
        noise: standard deviation of the logarithm of each sample.
        between: the same of each process.
        slower: factor by stage, such as {"mert": 1.2}.
    """
    generator = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).uniform(0.6, 1.4, TRACKS)  # what a track costs, the same in every record
    shifts = np.exp(generator.normal(0, between, processes))
    reached = {"fma": range(TRACKS), "mert": range(0, TRACKS, 2), "jmla": range(0, TRACKS, 4)}
    factor = {stage: (slower or {}).get(stage, 1.0) for stage in STAGES}
    measures: list[Measure] = []

    def measure(
        scenario: str, subject: str, part: str, base: Callable[[int], float], tracks: Any = None, **more: Any
    ) -> None:
        column: dict[str, list[Any]] = {"samples": [], "tracks": [], "passes": [], "processes": []}
        for process in range(processes):
            for number in range(passes):
                for track in range(TRACKS) if tracks is None else tracks or [None]:
                    value = base(track or 0) * shifts[process] * np.exp(generator.normal(0, noise))
                    column["samples"].append(float(value))
                    column["passes"].append(number)
                    column["processes"].append(process)
                    if track is not None:
                        column["tracks"].append(track)
        measures.append(
            Measure(**({"scenario": scenario, "subject": subject, "part": part, "unit": "ms"} | more), **column)
        )

    def total(stages: Any) -> Callable[[int], float]:
        return lambda track: 5.0 + lengths[track] * sum(COST[s] * factor[s] for s in stages if track in reached[s])

    for stage in STAGES:
        subject = f"single:{stage}"
        measure("stage", subject, "decode", lambda track: 5.0 * lengths[track])
        for part, cost in PARTS[stage].items():
            measure("stage", subject, part, lambda t, c=cost, s=stage: c * lengths[t] * factor[s], stage=stage)
        measure("stage", subject, "total", lambda t, s=stage: COST[s] * lengths[t] * factor[s], stage=stage)
    measure("single-stream", "cascade", "track", total(STAGES))
    measure("single-stream", "cascade", "cpu", total(STAGES))
    measure("single-stream", "cascade", "decode", lambda track: 5.0 * lengths[track])
    for stage in STAGES:
        base = lambda t, s=stage: COST[s] * lengths[t] * factor[s]  # noqa: E731
        measure("single-stream", "cascade", "total", base, tracks=list(reached[stage]), stage=stage)
    everything = lambda t: 5.0 + lengths[t] * sum(COST[s] * factor[s] for s in STAGES)  # noqa: E731
    measure("single-stream", "ensemble", "track", everything)
    for stage in STAGES:
        measure("single-stream", f"single:{stage}", "track", lambda t, s=stage: 5.0 + COST[s] * lengths[t] * factor[s])
    mean = float(np.mean([total(STAGES)(track) for track in range(TRACKS)]))
    more = {"unit": "tracks/min", "better": "higher"}
    measure("offline", "cascade", "throughput", lambda _: 60_000 / mean, tracks=[], **more)
    for phase in ("cold", "warm"):
        measure("cold-start", "cascade", "total", lambda _: 900.0, tracks=[], phase=phase)
    measure("peers", "edge-reclass:518 features", "features", lambda t: 40.0 * lengths[t])
    measure("peers", "librosa:518 features", "features", lambda t: 280.0 * lengths[t])
    genres = [GENRES[track % 3] for track in range(TRACKS)]
    left = {track: max((s for s in STAGES if track in reached[s]), key=STAGES.index) for track in range(TRACKS)}
    subjects = ["cascade", "ensemble", *(f"single:{stage}" for stage in STAGES)]
    return Record(
        kind="edge-reclass-bench",
        format=2,
        subject=Subject(
            bundle="made",
            bundle_sha256="a" * 64,
            genres=GENRES,
            policy=PolicyRecord(
                name="progressive",
                vote="soft",
                steps=[
                    StepRecord(after="fma", weights={"fma": 1.0}, accept=0.9),
                    StepRecord(after="mert", weights={"mert": 1.0}, accept=0.8),
                    StepRecord(after="jmla", weights={"fma": 0.2, "mert": 0.4, "jmla": 0.4}),
                ],
            ),
            device=device,
            data_sha256="b" * 64,
            data_digest_of="content",
            machine=MACHINE,
            precisions={"mert": "fp16", "jmla": "fp16"},
            engines={"mert": "c" * 64},
        ),
        settings=Settings(
            processes=processes,
            precision=0.02,
            max_seconds=600.0,
            min_passes=passes,
            warm_up=1,
            jobs=2,
            threads=4,
            batch=16,
            seed=7,
        ),
        environment=Environment(
            created="2026-11-01T00:00:00Z",
            command=["edge-reclass", "bench", "run"],
            version="0.1.0",
            code_sha256="d" * 64,
            python="3.11.7",
            libraries={"numpy": "2.0.0", "onnxruntime": "1.30.0"},
            thread_variables={},
            machine_before={},
            machine_after={},
            load_before=[0.1, 0.1, 0.1],
        ),
        tracks=[
            TrackEntry(
                name=f"music/{track:02}.flac",
                label=genres[track] if track else None,
                status="ok",
                genre=genres[track],
                decided_by=left[track],
                seconds=30.0,
                entered=[s for s in STAGES if track in reached[s]],
            )
            for track in range(TRACKS)
        ],
        measures=measures,
        runs=[
            Run(
                scenario="stage" if subject.startswith("single:") else "single-stream",
                subject=subject,
                wall_seconds=10.0,
                warm_up=1,
                passes=passes * processes,
                count=passes * processes * TRACKS,
                cpu_seconds=passes * processes * TRACKS * 0.5,
                other_cpu=0.01,
                host_peak_bytes=300 << 20,
            )
            for subject in subjects
        ],
        series=[
            Series(
                scenario="energy",
                subject="cascade",
                phase=phase,  # type: ignore[arg-type]
                seconds=[0.5 * i for i in range(81)],
                values={"watts": [watts] * 81, "celsius:gpu": [50.0] * 81, "mhz:gpu": [900.0] * 81},
                began=0.0 if phase == "idle" else 2.0,
                ended=40.0 if phase == "idle" else 38.0,
                count=0 if phase == "idle" else 72,
                finished=[] if phase == "idle" else [2.0 + 0.5 * i for i in range(72)],
                power_source="board input rail",
            )
            for phase, watts in (("idle", 5.0), ("busy", 20.0))
        ],
        answers=[
            Answers(
                subject=subject,
                genres=list(genres),
                probabilities=[[0.6 if g == genre else 0.2 for g in GENRES] for genre in genres]
                if subject.startswith("single:")
                else None,
                needs=["fma"] if subject == "single:mert" else [],
                signal="30 s from center at 24000 Hz" if subject.startswith("single:") else None,
            )
            for subject in subjects
        ],
        files=[
            StageFile(stage="mert", precision="fp32", bytes=400_000_000, kind="onnx", agrees=12, of=12),
            StageFile(stage="mert", precision="fp16", bytes=200_000_000, kind="engine", agrees=11, of=12),
        ],
        peers=[
            Peer(
                name="librosa:518 features",
                task="518 features",
                title="librosa",
                versions={"librosa": "0.11.0"},
                ours="peers/edge-reclass:518 features/-/features/warm/host",
            ),
            Peer(name="torch:mert", task="mert", title="transformers and torch", reason="torch is not installed"),
        ],
        absent=[Absent(what="build", reason="no TensorRT")],
    )


def changed(record: Record, key: str, change: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Record:
    """``record`` with the samples of one measure passed through ``change(samples, passes, processes)``."""
    measures = [
        msgspec.structs.replace(
            m, samples=change(np.array(m.samples), np.array(m.passes), np.array(m.processes)).tolist()
        )
        if m.key == key
        else m
        for m in record.measures
    ]
    return msgspec.structs.replace(record, measures=measures)
