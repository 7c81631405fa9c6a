"""A record made in memory, as a run of a three-stage cascade over twelve tracks would leave it. Nothing is measured.

``make_record()`` gives the same record every time; ``slower`` and ``noise`` make what comparisons are tested with.
"""

from __future__ import annotations

import numpy as np

from edge_reclass_bench.record import (
    Absent,
    Accounting,
    Baseline,
    Environment,
    Estimate,
    Expected,
    Measure,
    Order,
    Peer,
    PolicyRecord,
    Record,
    Run,
    Settings,
    StageAnswers,
    StageFlow,
    StepRecord,
    Subject,
    TrackEntry,
)
from edge_reclass_bench.statistics import paired_ratio, summarise, wilson

GENRES = ["Alpha", "Beta", "Gamma"]
STAGES = ["fma", "mert", "jmla"]
COST = {"fma": 45.0, "mert": 700.0, "jmla": 160.0}
"""Milliseconds per track of each stage alone."""
PARTS = {
    "fma": {"resample": 6.0, "features": 38.0, "head": 0.3, "policy": 0.02},
    "mert": {"resample": 6.0, "fill": 3.0, "run": 690.0, "head": 0.3, "policy": 0.02},
    "jmla": {"resample": 5.0, "fill": 2.0, "run": 152.0, "head": 0.3, "policy": 0.02},
}
DEVICE_PARTS = {"copy_in": 0.02, "compute": 0.95, "copy_out": 0.01}
"""Shares of ``run``."""
TRACKS = 12
PASSES = 10


def make_record(
    *,
    seed: int = 1,
    noise: float = 0.02,
    slower: dict[str, float] | None = None,
    device: str = "cuda",
    passes: int = PASSES,
) -> Record:
    """A record with every part filled.

    Args:
        seed: of the noise.
        noise: standard deviation of the logarithm of each sample.
        slower: factor by stage, such as {"mert": 1.2}.
        device: "cpu" leaves out the device's clock.
    """
    generator = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).uniform(0.6, 1.4, TRACKS)  # what a track costs, the same in every record
    reached = {"fma": set(range(TRACKS)), "mert": set(range(0, TRACKS, 2)), "jmla": set(range(0, TRACKS, 4))}
    factor = {stage: (slower or {}).get(stage, 1.0) for stage in STAGES}
    measures: list[Measure] = []

    def jitter(base: float, tracks: list[int], count: int) -> tuple[list[float], list[int], list[int]]:
        samples, who, when = [], [], []
        for number in range(count):
            for track in tracks:
                samples.append(float(base * lengths[track] * np.exp(generator.normal(0, noise))))
                who.append(track)
                when.append(number)
        return samples, who, when

    def measure(
        scenario: str,
        subject: str,
        part: str,
        base: float,
        tracks: list[int],
        *,
        stage: str | None = None,
        clock: str = "host",
        phase: str = "warm",
        count: int = passes,
    ) -> Measure:
        samples, who, when = jitter(base, tracks, count)
        made = Measure(
            scenario=scenario,
            subject=subject,
            stage=stage,
            part=part,
            phase=phase,
            clock=clock,
            unit="ms",
            samples=samples,
            tracks=who,
            passes=when,
            summary=summarise(samples, who, when, resamples=200),
        )
        measures.append(made)
        return made

    everyone = list(range(TRACKS))
    for stage in STAGES:
        subject = f"single:{stage}"
        measure("stage", subject, "decode", 25.0, everyone)
        measure("stage", subject, "total", COST[stage] * factor[stage], everyone, stage=stage)
        for part, base in PARTS[stage].items():
            measure("stage", subject, part, base * factor[stage], everyone, stage=stage)
            if part == "run" and device != "cpu":
                for inner, share in DEVICE_PARTS.items():
                    measure(
                        "stage", subject, inner, base * factor[stage] * share, everyone, stage=stage, clock="device"
                    )
    totals = {
        "cascade": 25.0 + sum(COST[s] * factor[s] * len(reached[s]) / TRACKS for s in STAGES),
        "ensemble": 25.0 + sum(COST[s] * factor[s] for s in STAGES),
        **{f"single:{s}": 25.0 + COST[s] * factor[s] for s in STAGES},
    }
    for subject, base in totals.items():
        measure("single-stream", subject, "track", base * 1.5, everyone, phase="cold", count=1)
        measure("single-stream", subject, "track", base, everyone)
    for stage in STAGES:
        measure("single-stream", "cascade", "total", COST[stage] * factor[stage], sorted(reached[stage]), stage=stage)
    for part, base in {"start": 20.0, "import": 150.0, "open": 400.0, "first": 80.0, "total": 650.0}.items():
        samples = [float(base * np.exp(generator.normal(0, noise))) for _ in range(8)]
        numbers = list(range(8))
        measures.append(
            Measure(
                scenario="cold-start",
                subject="cascade",
                part=part,
                unit="ms",
                samples=samples,
                passes=numbers,
                summary=summarise(samples, [], numbers, resamples=200),
            )
        )
    rates = [float(60_000 / totals["cascade"] * 1.7 * np.exp(generator.normal(0, noise))) for _ in range(passes)]
    measures.append(
        Measure(
            scenario="offline",
            subject="cascade",
            part="throughput",
            unit="tracks/min",
            better="higher",
            samples=rates,
            passes=list(range(passes)),
            summary=summarise(rates, [], list(range(passes)), resamples=200),
        )
    )
    librosa = measure("peers", "librosa-518", "features", 360.0, everyone)
    ours = measure("peers", "edge-reclass", "features", 45.0, everyone)
    mean = {m.key: m.summary.mean for m in measures}
    tracks = [
        TrackEntry(
            name=f"folder/track{i:02}.ogg",
            label=GENRES[i % 3],
            status="ok",
            genre=GENRES[i % 3 if i % 5 else 0],
            decided_by=[s for s in STAGES if i in reached[s]][-1],
            seconds=30.0,
        )
        for i in everyone
    ]
    answers = [
        StageAnswers(
            stage=stage,
            needs=[],
            signal=f"center 30 s at {rate} Hz",
            probabilities=[_probabilities(i, strength) for i in everyone],
        )
        for stage, rate, strength in (("fma", 44100, 0.6), ("mert", 24000, 0.8), ("jmla", 16000, 0.75))
    ]
    ensemble_cost = np.full(TRACKS, totals["ensemble"]) * lengths
    names = ["cascade", "ensemble", *(f"single:{s}" for s in STAGES)]
    baselines = [
        Baseline(
            name=name,
            stages=[name.removeprefix("single:")] if name.startswith("single:") else STAGES,
            milliseconds=mean[f"single-stream/{name}/-/track/warm/host"],
            relative=paired_ratio(ensemble_cost, np.full(TRACKS, totals[name]) * lengths),
            agreement=wilson(TRACKS - i, TRACKS),
            accuracy=wilson(10 - i, TRACKS),
            macro_f1=Estimate(value=0.8 - 0.02 * i, low=0.6, high=0.95),
        )
        for i, name in enumerate(names)
    ]
    measured = mean["single-stream/cascade/-/track/warm/host"]
    flow = [
        StageFlow(
            stage=stage,
            entered=len(reached[stage]),
            exited=sum(track.decided_by == stage for track in tracks),
            reach=wilson(len(reached[stage]), TRACKS),
            alone=mean[f"stage/single:{stage}/{stage}/total/warm/host"],
            inside=mean[f"single-stream/cascade/{stage}/total/warm/host"],
        )
        for stage in STAGES
    ]
    runs = [
        Run(
            scenario=scenario,
            subject=subject,
            wall_seconds=totals[subject] * TRACKS * passes / 1e3,
            warm_up=1,
            passes=passes,
            count=TRACKS * passes,
            cpu_seconds=totals[subject] * TRACKS * passes / 1e3,
            other_cpu=0.1,
            involuntary_switches=12,
            host_peak_bytes=900_000_000,
            device_peak_bytes=None if device == "cpu" else 2_100_000_000,
            power_watts=None if device == "cpu" else Estimate(value=118.0, low=110.0, high=126.0),
            power_source=None if device == "cpu" else "NVML, whole board",
            joules_per_track=None if device == "cpu" else totals[subject] / 1e3 * 118.0,
            clocks_mhz={"cpu": (2400.0, 3600.0)},
            temperatures={"cpu": (51.0, 63.5)},
        )
        for scenario in ("single-stream", "offline")
        for subject in (names if scenario == "single-stream" else ["cascade"])
    ]
    orders = [
        Order(
            stages=stages,
            rule="tuned",
            accepts=[0.7, 0.6],
            milliseconds=Estimate(value=cost, low=cost * 0.9, high=cost * 1.1),
            reach=[1.0, 0.5, 0.25],
            agreement=wilson(11, TRACKS),
            target=11 / 12,
            relative=Estimate(value=cost / 440.0, low=cost / 440.0 * 0.9, high=cost / 440.0 * 1.1),
            accuracy=wilson(9, TRACKS),
            macro_f1=Estimate(value=0.78, low=0.6, high=0.9),
        )
        for stages, cost in ((STAGES, 440.0), (["fma", "jmla", "mert"], 320.0), (["jmla", "fma", "mert"], 390.0))
    ]
    return Record(
        kind="edge-reclass-bench",
        format=1,
        subject=Subject(
            bundle="sample",
            bundle_sha256="0" * 64,
            genres=GENRES,
            policy=PolicyRecord(
                name="ladder",
                vote="soft",
                steps=[
                    StepRecord(after="fma", weights={"fma": 1.0}, accept=0.85),
                    StepRecord(after="mert", weights={"fma": 0.4, "mert": 0.6}, accept=0.8),
                    StepRecord(after="jmla", weights={"fma": 0.25, "mert": 0.35, "jmla": 0.4}),
                ],
            ),
            device=device,
            data_sha256="1" * 64,
            data_digest_of="content",
            scenarios=["stage", "single-stream", "offline", "cold-start", "build"],
            machine="Sample CPU, 8 cores" + ("" if device == "cpu" else "; Sample GPU"),
            precisions={"mert": "fp16", "jmla": "fp16"},
        ),
        settings=Settings(min_seconds=5.0, min_count=60, warm_up=1, jobs=2, threads=2, batch=16, seed=1, resamples=200),
        environment=Environment(
            created="2026-11-20T14:00:00Z",
            command=["edge-reclass", "bench", "run", "folder"],
            version="0.1.0",
            python="3.11.7",
            libraries={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
            thread_variables={"OMP_NUM_THREADS": "1"},
            machine_before={"cpu": {"model": "Sample CPU", "cores": 8}, "gpu": None},
            machine_after={"cpu": {"model": "Sample CPU", "cores": 8}, "gpu": None},
            load_before=[0.1, 0.2, 0.3],
            load_after=[1.9, 1.2, 0.7],
            commit="0123456789abcdef0123456789abcdef01234567",
            notes=["auto chose cuda"],
        ),
        tracks=tracks,
        measures=measures,
        runs=runs,
        answers=answers,
        accounting=Accounting(
            answered=TRACKS,
            statuses={"ok": TRACKS},
            flow=flow,
            expected=Expected(
                decode=mean["stage/single:fma/-/decode/warm/host"],
                expected=Estimate(value=totals["cascade"], low=totals["cascade"] * 0.9, high=totals["cascade"] * 1.1),
                replayed=Estimate(value=totals["cascade"], low=totals["cascade"] * 0.9, high=totals["cascade"] * 1.1),
                measured=measured,
            ),
            baselines=baselines,
            replay_agrees=wilson(TRACKS, TRACKS),
        ),
        orders=orders,
        peers=[
            Peer(
                name="librosa-518",
                task="518 features",
                title="librosa 0.11",
                versions={"librosa": "0.11.0"},
                ours=ours.key,
                ratio=Estimate(value=librosa.summary.mean.value / ours.summary.mean.value, low=7.6, high=8.3),
            ),
            Peer(name="torch-eager", task="MERT-95M", title="torch, eager", reason="torch is not installed"),
        ],
        absent=[Absent(what="build", reason="no TensorRT is installed")],
        warnings=["stage/single:fma/fma/features/warm/host: the second half of the passes took 6 % longer"],
    )


def _probabilities(track: int, strength: float) -> list[float]:
    """A distribution that leans to the track's label with ``strength``, or, for every fifth track, to the next."""
    lean = (track + (track % 5 == 0)) % 3
    rest = (1 - strength) / 2
    return [strength if genre == lean else rest for genre in range(3)]
