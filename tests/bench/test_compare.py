"""Two records: equals are equal, a fifth more is found, and what is not comparable is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from bench.sample import make_record
from edge_reclass_bench.compare import Comparison, compare, mismatches
from edge_reclass_bench.instability import instability
from edge_reclass_bench.record import Record
from edge_reclass_bench.statistics import summarise


def _by_key(a: Record, b: Record) -> dict[str, Comparison]:
    return {comparison.key: comparison for comparison in compare(a, b, resamples=500)}


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_two_runs_of_the_same_thing_do_not_differ(seed: int, noise: float) -> None:
    found = _by_key(make_record(seed=1, noise=noise), make_record(seed=seed, noise=noise))
    assert len(found) > 30
    headlines = [comparison for comparison in found.values() if comparison.headline]
    assert [c.key for c in headlines if c.result != "no difference"] == []
    assert sum(c.result in {"slower", "faster"} for c in found.values()) <= 1
    assert not any(comparison.regression(0.05) for comparison in found.values())


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_fifth_more_is_found_where_it_is_and_only_there(noise: float) -> None:
    found = _by_key(make_record(seed=1, noise=noise), make_record(seed=2, noise=noise, slower={"mert": 1.2}))
    mert = found["stage/single:mert/mert/total/warm/host"]
    assert mert.result == "slower"
    assert mert.slowdown.value == pytest.approx(1.2, rel=0.04)
    assert mert.verdict.startswith("slower by ")
    assert mert.regression(0.05)
    assert not mert.regression(0.5)
    assert found["stage/single:fma/fma/total/warm/host"].result == "no difference"
    if noise < 0.02:  # half of the tracks enter mert, and ten blocks have no tracks to pair
        assert found["offline/cascade/-/throughput/warm/host"].result == "slower"
    assert not found["stage/single:mert/mert/run/warm/host"].regression(0.05)  # a part explains, it does not decide


def test_faster_is_no_regression() -> None:
    found = _by_key(make_record(seed=1), make_record(seed=2, slower={"mert": 0.8}))
    mert = found["stage/single:mert/mert/total/warm/host"]
    assert mert.verdict.startswith("faster by ")
    assert found["offline/cascade/-/throughput/warm/host"].result == "faster"
    assert not any(comparison.regression(0.0) for comparison in found.values() if comparison.result != "slower")


def _scaled(record: Record, key: str, change: Any) -> Record:
    """``record`` with the samples of one measure passed through ``change(samples, passes)``."""
    measures = []
    for measure in record.measures:
        if measure.key == key:
            samples = change(np.array(measure.samples), np.array(measure.passes)).tolist()
            summary = summarise(samples, measure.tracks, measure.passes, resamples=200)
            measure = msgspec.structs.replace(measure, samples=samples, summary=summary)
        measures.append(measure)
    return msgspec.structs.replace(record, measures=measures)


FMA = "stage/single:fma/fma/total/warm/host"


def test_a_disturbed_minority_of_passes_is_no_difference() -> None:
    b = _scaled(make_record(seed=2), FMA, lambda samples, passes: samples * np.where(passes >= 7, 3.0, 1.0))
    assert _by_key(make_record(seed=1), b)[FMA].result == "no difference"


def test_a_majority_that_the_fastest_do_not_share_is_unclear() -> None:
    """Eight of ten passes are slow, early and late alike: the median differs, the fastest samples do not."""
    calm = make_record(seed=2, passes=20)
    b = _scaled(calm, FMA, lambda s, passes: s * np.where((passes % 10 != 0) & (passes % 10 != 9), 1.3, 1.0))
    comparison = _by_key(make_record(seed=1, passes=20), b)[FMA]
    assert comparison.result == "unclear"
    assert "disturbed" in comparison.note
    assert not comparison.regression(0.05)


def test_a_record_that_drifts_cannot_show_less_than_its_drift() -> None:
    drifting = _scaled(make_record(seed=1), FMA, lambda s, passes: s * np.where(passes >= 5, 1.12, 1.0))
    comparison = _by_key(drifting, _scaled(make_record(seed=2), FMA, lambda s, _: s * 1.12))[FMA]
    assert comparison.floor > 0.08
    assert comparison.result == "no difference"


def _on_cpu(record: Record, cpu: float, other: float) -> Record:
    runs = [
        msgspec.structs.replace(run, cpu_seconds=cpu * (run.cpu_seconds or 0.0), other_cpu=other) for run in record.runs
    ]
    return msgspec.structs.replace(record, runs=runs)


@pytest.mark.parametrize(
    ("cpu", "other", "result"), [(1.0, 0.8, "unclear"), (1.2, 0.8, "slower"), (1.0, 0.0, "slower")]
)
def test_beside_busy_programs_processor_time_has_to_agree(cpu: float, other: float, result: str) -> None:
    a = _on_cpu(make_record(seed=1, device="cpu"), 1.0, 0.0)
    slow = make_record(seed=2, device="cpu", slower={"fma": 1.2, "mert": 1.2, "jmla": 1.2})
    # The sample's cost of a subject stands in its runs, 1.0 being that of the record it is compared with.
    runs = [
        msgspec.structs.replace(run, cpu_seconds=own.cpu_seconds) for run, own in zip(slow.runs, a.runs, strict=True)
    ]
    b = _on_cpu(msgspec.structs.replace(slow, runs=runs), cpu, other)
    found = _by_key(a, b)["single-stream/ensemble/-/track/warm/host"]
    assert found.result == result


def test_on_a_gpu_processor_time_says_nothing() -> None:
    a, b = make_record(seed=1), make_record(seed=2, slower={"fma": 1.2, "mert": 1.2, "jmla": 1.2})
    b = _on_cpu(b, 0.5, 0.9)
    found = _by_key(a, b)["single-stream/ensemble/-/track/warm/host"]
    assert found.result == "slower"
    assert "other programs used 0.9" in found.note


def test_tracks_are_paired_by_name() -> None:
    """B lacks the costly half of the tracks: unpaired medians would differ by far more than noise."""
    a, b = make_record(seed=1), make_record(seed=2)
    keep = [i for i in range(12) if i % 2]

    def fewer(record: Record) -> Record:
        measures = []
        for measure in record.measures:
            if not measure.tracks:
                continue
            rows = [i for i, track in enumerate(measure.tracks) if track in keep]
            if not rows:
                continue
            samples = [measure.samples[i] for i in rows]
            tracks = [keep.index(measure.tracks[i]) for i in rows]
            passes = [measure.passes[i] for i in rows]
            summary = summarise(samples, tracks, passes, resamples=50)
            measures.append(
                msgspec.structs.replace(measure, samples=samples, tracks=tracks, passes=passes, summary=summary)
            )
        tracks_kept = [record.tracks[i] for i in keep]
        return msgspec.structs.replace(record, measures=measures, tracks=tracks_kept, answers=[])

    found = _by_key(a, fewer(b))
    assert found[FMA].result == "no difference"
    assert found[FMA].slowdown.value == pytest.approx(1.0, abs=0.02)


def test_what_must_match_is_named() -> None:
    a = make_record(seed=1)
    assert mismatches(a, make_record(seed=2)) == []
    subject = msgspec.structs.replace(a.subject, device="cpu", bundle_sha256="f" * 64)
    settings = msgspec.structs.replace(a.settings, threads=7, seed=99)
    other = msgspec.structs.replace(a, subject=subject, settings=settings)
    found = mismatches(a, other)
    assert [line.split(":")[0] for line in found] == ["subject.bundle_sha256", "subject.device", "settings.threads"]
    assert "cuda against cpu" in found[1]


def test_a_steady_record_gives_no_warnings_and_an_unsteady_one_says_why() -> None:
    calm = make_record(noise=0.01)
    steady = [msgspec.structs.replace(run, clocks_mhz={"cpu": (3500.0, 3600.0)}) for run in calm.runs]
    calm = msgspec.structs.replace(calm, runs=steady)
    assert instability(calm) == []
    runs = [
        msgspec.structs.replace(
            calm.runs[0], other_cpu=1.3, throttled=["thermal slowdown"], clocks_mhz={"gpu": (600.0, 900.0)}, passes=2
        )
    ]
    drifting = _scaled(calm, FMA, lambda samples, passes: samples * np.where(passes >= 5, 1.2, 1.0))
    text = "\n".join(instability(msgspec.structs.replace(drifting, runs=runs)))
    for part in ("only 2 passes", "up to 1.30 processors", "thermal slowdown", "600 to 900 MHz", "drift", "1.2"):
        assert part in text


def test_scatter_and_outliers_are_told() -> None:
    generator = np.random.default_rng(0)
    wild = _scaled(make_record(noise=0.01, passes=20), FMA, lambda s, _: s * np.exp(generator.normal(0, 0.4, len(s))))
    assert any("unsteady" in line for line in instability(wild))
    spiky = _scaled(
        make_record(noise=0.001, passes=20), FMA, lambda s, passes: s * np.where(passes % 10 == 4, 2.0, 1.0)
    )
    assert any("outliers" in line for line in instability(spiky))


def test_what_many_measures_share_is_one_line() -> None:
    record = make_record(noise=0.01)
    for key in (FMA, "stage/single:mert/mert/total/warm/host"):
        record = _scaled(record, key, lambda samples, passes: samples * np.where(passes >= 5, 1.2, 1.0))
    lines = [line for line in instability(record) if line.startswith("drift")]
    assert len(lines) == 1
    assert "2 measures" in lines[0]


def _with_processor_time(record: Record, factor: float, seed: int) -> Record:
    """With a steady processor time beside unsteady wall time."""
    steady = next(make_record(seed=seed, noise=0.02).find("single-stream", "cascade", part="track"))
    samples = [value * factor for value in steady.samples]
    summary = summarise(samples, steady.tracks, steady.passes, resamples=50)
    cpu = msgspec.structs.replace(steady, part="cpu", samples=samples, summary=summary)
    return msgspec.structs.replace(record, measures=[*record.measures, cpu])


@pytest.mark.parametrize(("device", "regression"), [("cpu", True), ("cuda", False)])
def test_more_processor_time_is_a_regression_on_the_cpu_alone(device: str, regression: bool) -> None:
    """Beside busy programs wall time shows nothing; processor time still does."""
    a = _with_processor_time(make_record(seed=3, noise=0.3, device=device), 1.0, 1)
    b = _with_processor_time(make_record(seed=4, noise=0.3, device=device), 1.2, 2)
    found = _by_key(a, b)
    assert found["single-stream/cascade/-/track/warm/host"].result == "no difference"
    cpu = found["single-stream/cascade/-/cpu/warm/host"]
    assert cpu.result == "slower"
    assert cpu.regression(0.05) is regression


def test_no_difference_between_unsteady_records_rules_nothing_out() -> None:
    calm = _by_key(make_record(seed=1, noise=0.005), make_record(seed=2, noise=0.005))[FMA]
    wild = _by_key(make_record(seed=1, noise=0.3), make_record(seed=2, noise=0.3))[FMA]
    assert calm.result == wild.result == "no difference"
    assert calm.excludes(0.05)
    assert not wild.excludes(0.05)
