"""Records made up for the report's tests: every number is drawn from a seed, none was measured."""

from __future__ import annotations

from collections.abc import Sequence

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
    StageFlow,
    StepRecord,
    Subject,
    TrackEntry,
)
from edge_reclass_bench.statistics import summarise, wilson

TRACKS = 120
PASSES = 4

HOST_PARTS = {"fma": {"resample": 0.02, "features": 0.9, "head": 0.003, "policy": 0.001}}
WAVEFORM_PARTS = {"resample": 0.004, "fill": 0.002, "run": 0.985, "head": 0.001, "policy": 0.001}


def around(mean: float, number: int, seed: int) -> list[float]:
    """``number`` times around ``mean``, skewed as times are."""
    return (mean * (0.9 + np.random.default_rng(seed).gamma(2.0, 0.05, number))).tolist() if mean else [0.0] * number


def timed(scenario: str, subject: str, part: str, samples: Sequence[float], **options) -> Measure:
    """A measure of TRACKS × passes samples, or of samples that belong to no track."""
    by_track = len(samples) % TRACKS == 0
    tracks = [i % TRACKS for i in range(len(samples))] if by_track else []
    passes = [i // TRACKS if by_track else i for i in range(len(samples))]
    return Measure(
        scenario=scenario,
        subject=subject,
        part=part,
        unit=options.pop("unit", "ms"),
        samples=list(samples),
        passes=passes,
        tracks=tracks,
        summary=summarise(samples, tracks, passes, resamples=200),
        **options,
    )


def stage_measures(stage: str, mean: float, *, device: bool, seed: int) -> list[Measure]:
    parts = HOST_PARTS.get(stage, WAVEFORM_PARTS)
    number = TRACKS * PASSES
    place = {"scenario": "stage", "subject": f"single:{stage}"}
    measures = [
        timed(part=part, samples=around(mean * share, number, seed + i), stage=stage, **place)
        for i, (part, share) in enumerate(parts.items())
    ]
    measures.append(timed(part="other", samples=around(mean * 0.005, number, seed + 20), stage=stage, **place))
    measures.append(timed(part="total", samples=around(mean, number, seed + 21), stage=stage, **place))
    if device and "run" in parts:
        for i, (part, share) in enumerate((("copy_in", 0.06), ("compute", 0.8), ("copy_out", 0.02))):
            samples = around(mean * share, number, seed + 30 + i)
            measures.append(timed(part=part, samples=samples, stage=stage, clock="device", **place))
    return measures


def make_record(
    stages: dict[str, float] | None = None,
    *,
    device: bool = False,
    decode: float = 24.0,
    jobs: int = 2,
    bundle: str = "synthetic-mert-95m-openjmla",
    without: Sequence[str] = (),
    seed: int = 0,
) -> Record:
    """A record of a cascade with ``stages`` (name → mean ms); ``without`` names scenarios that were not run."""
    stages = {"fma": 46.0, "mert": 3350.0, "jmla": 1010.0} if stages is None else stages
    names = list(stages)
    measures: list[Measure] = []
    if "stage" not in without:
        for i, (name, mean) in enumerate(stages.items()):
            measures += stage_measures(name, mean, device=device, seed=seed + 100 * i)
        measures.append(timed("stage", "single:" + names[0], "decode", around(decode, TRACKS * PASSES, seed + 7)))
    entered, flow, reach = TRACKS, [], []
    for i, (name, mean) in enumerate(stages.items()):
        exited = entered if i == len(stages) - 1 else entered - entered // 2
        alone = Estimate(value=mean, low=mean * 0.97, high=mean * 1.03)
        flow.append(StageFlow(stage=name, entered=entered, exited=exited, reach=wilson(entered, TRACKS), alone=alone))
        reach.append(entered / TRACKS)
        entered -= exited
    cost = decode + sum(share * mean for share, mean in zip(reach, stages.values(), strict=True))
    if "single-stream" not in without:
        levels = [decode + sum(list(stages.values())[: i + 1]) for i in range(len(stages))]
        random = np.random.default_rng(seed + 5)
        share = random.choice(len(levels), TRACKS)
        warm = [levels[level] * (0.95 + random.gamma(2.0, 0.03)) for _ in range(PASSES) for level in share]
        cold = [levels[level] * (1.0 + random.gamma(2.0, 0.05)) for level in share]
        measures.append(timed("single-stream", "cascade", "track", cold, phase="cold"))
        measures.append(timed("single-stream", "cascade", "track", warm))
    if "offline" not in without:
        rates = around(60_000 / max(cost, 1.0), 6, seed + 8)
        measures.append(timed("offline", "cascade", "throughput", rates, unit="tracks/min", better="higher"))
    if "cold-start" not in without:
        for part, seconds in (("start", 0.02), ("import", 0.31), ("open", 0.55), ("first", 0.4), ("total", 1.28)):
            samples = around(seconds, 8, seed + 9)
            measures.append(timed("cold-start", "cascade", part, samples, unit="s", phase="cold"))
    peers = []
    if "peers" not in without:
        measures.append(timed("peers", "librosa", "features", around(364.0, 12, seed + 11)))
        measures.append(timed("peers", "edge-reclass:features", "features", around(46.0, 12, seed + 12)))
        ours = "peers/edge-reclass:features/-/features/warm/host"
        ratio = Estimate(value=7.9, low=7.6, high=8.2)
        peers.append(Peer(name="librosa", task="518 features", title="librosa 0.11", ours=ours, ratio=ratio))
        reason = "torch is not installed"
        peers.append(Peer(name="torch", task="MERT-95M", title="transformers, eager", reason=reason))
    whole = decode + sum(stages.values())
    baselines = [
        _baseline("cascade", names, cost * 1.01, whole),
        _baseline("ensemble", names, whole, whole),
        *(_baseline(f"single:{name}", [name], decode + mean, whole) for name, mean in stages.items()),
    ]
    expected = Expected(
        decode=Estimate(value=decode),
        expected=Estimate(value=cost, low=cost * 0.95, high=cost * 1.05),
        replayed=Estimate(value=cost * 0.99),
        measured=Estimate(value=cost * 1.01, low=cost * 0.96, high=cost * 1.07),
    )
    books = Accounting(
        answered=TRACKS,
        statuses={"ok": TRACKS - 1, "silent": 1},
        flow=flow,
        expected=expected,
        baselines=baselines,
        replay_agrees=wilson(TRACKS, TRACKS),
    )
    order = Order(
        stages=names,
        rule="given",
        accepts=[0.9] * (len(names) - 1),
        milliseconds=expected.expected,
        reach=reach,
        agreement=wilson(100, TRACKS),
    )
    steps = [StepRecord(after=name, weights={name: 1.0}, accept=0.9) for name in names[:-1]]
    steps.append(StepRecord(after=names[-1], weights=dict.fromkeys(names, 1.0)))
    return Record(
        kind="edge-reclass-bench",
        format=1,
        subject=Subject(
            bundle=bundle,
            bundle_sha256="0123456789abcdef" * 4,
            genres=["Rock & Roll", "<script>alert(1)</script>", "Jazz"],
            policy=PolicyRecord(name="early-exit", vote="soft", steps=steps),
            device="cuda" if device else "cpu",
            data_sha256="fedcba9876543210" * 4,
            data_digest_of="content",
            scenarios=["stage", "single-stream", "offline", "cold-start", "peers"],
            machine="Made-up CPU, 2 cores" + (", Made-up GPU" if device else ""),
            precisions=dict.fromkeys(names, "fp16" if device else "fp32"),
            synthetic=True,
        ),
        settings=Settings(
            min_seconds=10.0, min_count=5, warm_up=1, jobs=jobs, threads=2, batch=16, seed=1, resamples=200
        ),
        environment=Environment(
            created="2026-11-20T14:00:00Z",
            command=["edge-reclass", "bench", "run", "--bundle", "x & y"],
            version="0.1.0",
            python="3.11.7",
            libraries={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
            thread_variables={},
            machine_before={
                "cpu": {"model": "Made-up CPU", "cores": 2},
                "gpu": None,
                "tags": ["a", "b"],
                "x": [{"y": 1}],
            },
            machine_after={"cpu": {"model": "Made-up CPU", "cores": 2}},
            load_before=[0.5, 0.4, 0.3],
            commit="43283b4",
        ),
        tracks=[TrackEntry(name=f"track {i}.mp3", status="ok", genre="Jazz") for i in range(TRACKS)],
        measures=measures,
        runs=[
            Run(
                scenario="stage",
                subject=f"single:{names[0]}",
                wall_seconds=12.3,
                warm_up=1,
                passes=PASSES,
                count=TRACKS * PASSES,
                cpu_seconds=20.1,
                other_cpu=0.1,
                host_peak_bytes=812_345_678,
                temperatures={"cpu": (41.0, 63.5)},
            )
        ],
        accounting=None if "accounting" in without else books,
        orders=[] if "accounting" in without else [order],
        peers=peers,
        absent=[Absent(what="power", reason="no sensor that can be read")],
        warnings=["stage/single:fma/fma/features: scatter 0.22 is above 0.1: something else used the machine"],
    )


def _baseline(name: str, stages: list[str], cost: float, whole: float) -> Baseline:
    return Baseline(
        name=name,
        stages=stages,
        milliseconds=Estimate(value=cost, low=cost * 0.96, high=cost * 1.05),
        relative=Estimate(value=cost / whole if whole else 1.0),
        agreement=wilson(TRACKS - 20, TRACKS),
        accuracy=wilson(70, TRACKS),
        macro_f1=Estimate(value=0.5, low=0.4, high=0.6),
    )
