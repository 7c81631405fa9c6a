"""Two records: equals are equal, a fifth more is found, and what is not comparable is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bench.sample import CASCADE, ENSEMBLE, FMA, MERT, RATE, changed, make_record
from edge_reclass_bench.compare import Comparison, also_differs, compare, mismatches, worst
from edge_reclass_bench.record import Measure, Record


def by_key(a: Record, b: Record) -> dict[str, Comparison]:
    return {comparison.key: comparison for comparison in compare(a, b)}


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
@pytest.mark.parametrize("between", [0.002, 0.01])
def test_two_runs_of_the_same_thing_do_not_differ(seed: int, between: float) -> None:
    found = list(compare(make_record(seed=1, between=between), make_record(seed=seed, between=between)))
    assert len(found) > 20
    assert [c.key for c in found if c.headline and c.result != "no difference"] == []
    assert worst(found) != "regression"


def test_a_fifth_more_is_found_where_it_is_and_only_there() -> None:
    found = by_key(make_record(seed=1), make_record(seed=2, slower={"mert": 1.2}))
    assert found[MERT].verdict.startswith("slower by ")
    assert found[MERT].slowdown.value == pytest.approx(1.2, rel=0.02)
    assert found[MERT].regression()
    assert not found[MERT].regression(0.5)
    assert found[FMA].result == "no difference"
    assert found[RATE].result == "slower"
    assert not found["stage/single:mert/mert/run/warm/host"].regression()  # a part explains, it does not decide
    assert worst(list(found.values())) == "regression"


def test_faster_is_no_regression() -> None:
    found = by_key(make_record(seed=1), make_record(seed=2, slower={"mert": 0.8}))
    assert found[MERT].verdict.startswith("faster by ")
    assert found[RATE].result == "faster"
    assert worst(list(found.values())) == "fine"


def test_records_of_few_processes_cannot_tell() -> None:
    found = by_key(make_record(seed=1, processes=4), make_record(seed=2, slower={"mert": 1.2}))
    assert found[MERT].result == "unclear"
    assert "fewer than 5 processes" in found[MERT].note
    assert worst(list(found.values())) == "cannot tell"


def test_what_differs_between_processes_is_no_difference_between_records() -> None:
    """Every process of B but one is as A; a run of one process could have been that one."""
    b = changed(make_record(seed=2), FMA, lambda s, _, processes: s * np.where(processes == 3, 1.3, 1.0))
    found = by_key(make_record(seed=1), b)[FMA]
    assert found.result == "no difference"
    assert found.cannot_tell  # and no all-clear either


def test_a_record_that_drifts_cannot_show_less_than_its_drift() -> None:
    drifting = changed(make_record(seed=1), FMA, lambda s, passes, _: s * np.where(passes >= 2, 1.12, 1.0))
    found = by_key(drifting, changed(make_record(seed=2), FMA, lambda s, *_: s * 1.12))[FMA]
    assert found.floor > 0.08
    assert found.result == "no difference"
    assert found.cannot_tell


def beside(record: Record, cpu: float, other: float) -> Record:
    """With so many times the processor time, while other programs used so many processors."""
    runs = [msgspec.structs.replace(r, cpu_seconds=cpu * (r.cpu_seconds or 0.0), other_cpu=other) for r in record.runs]
    return msgspec.structs.replace(record, runs=runs)


EVERYWHERE = {"fma": 1.2, "mert": 1.2, "jmla": 1.2}


@pytest.mark.parametrize(
    ("device", "cpu", "other", "result"),
    [
        ("cpu", 1.0, 2.0, "unclear"),  # half of four processors can double wall time
        ("cpu", 1.2, 2.0, "slower"),  # processor time says so too
        ("cpu", 1.0, 0.0, "slower"),
        ("cpu", 1.0, 0.4, "slower"),  # a tenth of the processors explains no fifth
        ("cuda", 1.0, 2.0, "slower"),  # there, processor time says nothing
    ],
)
def test_other_programs_explain_what_they_can_and_no_more(device: str, cpu: float, other: float, result: str) -> None:
    a, b = make_record(seed=1, device=device), make_record(seed=2, device=device, slower=EVERYWHERE)
    found = by_key(beside(a, 1.0, 0.0), beside(b, cpu, other))[ENSEMBLE]
    assert found.result == result
    assert (f"other programs used {other:.1f}" in found.note) == (other > 0.15)


def test_a_wait_of_300_ms_beside_other_programs_is_found() -> None:
    """A lock, a file system: wall time alone grows, by far more than 0.2 processors of others could explain."""
    slow = changed(make_record(seed=2, device="cpu"), FMA, lambda s, *_: s + 300.0)
    found = by_key(make_record(seed=1, device="cpu"), beside(slow, 1.0, 0.2))[FMA]
    assert found.slowdown.value > 5
    assert found.regression()


def test_tracks_are_paired_by_name() -> None:
    """B lacks the costly half of the tracks: unpaired means would differ by far more than noise."""
    a, b = make_record(seed=1), make_record(seed=2)
    keep = [track for track in range(12) if track % 2]
    measures = []
    for measure in b.measures:
        rows = [i for i, track in enumerate(measure.tracks) if track in keep]
        if rows:
            columns = {name: [getattr(measure, name)[i] for i in rows] for name in ("samples", "passes", "processes")}
            tracks = [keep.index(measure.tracks[i]) for i in rows]
            measures.append(msgspec.structs.replace(measure, tracks=tracks, **columns))
    fewer = msgspec.structs.replace(b, measures=measures, tracks=[b.tracks[i] for i in keep], answers=[])
    found = by_key(a, fewer)[FMA]
    assert found.result == "no difference"
    assert found.slowdown.value == pytest.approx(1.0, abs=0.02)


def test_what_must_match_is_named() -> None:
    a = make_record(seed=1)
    assert mismatches(a, make_record(seed=2)) == []
    machine = msgspec.structs.replace(a.subject.machine, instructions=["avx2", "avx512f"], clocks="400 to 2000 MHz")
    subject = msgspec.structs.replace(a.subject, device="cpu", bundle_sha256="f" * 64, machine=machine)
    settings = msgspec.structs.replace(a.settings, threads=7, seed=99)
    found = mismatches(a, msgspec.structs.replace(a, subject=subject, settings=settings))
    assert [line.split(":")[0] for line in found] == [
        "subject.bundle_sha256",
        "subject.device",
        "subject.machine.instructions",
        "subject.machine.clocks",
        "threads",
    ]
    assert found[1] == "subject.device: cuda against cpu"


def test_what_else_differs_is_named() -> None:
    a = make_record(seed=1)
    libraries = {"numpy": "2.0.0", "onnxruntime": "1.31.1"}
    environment = msgspec.structs.replace(a.environment, libraries=libraries, code_sha256="e" * 64)
    assert also_differs(a, msgspec.structs.replace(a, environment=environment)) == [
        "code: dddddddddddd against eeeeeeeeeeee",
        "libraries.onnxruntime: 1.30.0 against 1.31.1",
    ]


def test_what_one_process_does_alone_decides_nothing() -> None:
    a, b = make_record(seed=1), make_record(seed=2)
    one = {"part": "total", "unit": "s", "passes": [0], "processes": [0]}
    records = [
        msgspec.structs.replace(
            record, measures=[*record.measures, Measure(scenario="build", subject="cascade", samples=[time], **one)]
        )
        for record, time in ((a, 60.0), (b, 90.0))
    ]
    found = list(compare(*records))
    assert next(c for c in found if c.key.startswith("build/")).result == "unclear"
    assert worst(found) == "fine"


def test_more_processor_time_is_a_regression_on_the_cpu_alone() -> None:
    for device, regression in (("cpu", True), ("cuda", False)):
        a, b = (make_record(seed=seed, device=device) for seed in (1, 2))
        key = CASCADE.replace("/track/", "/cpu/")
        cpu = by_key(a, changed(b, key, lambda s, *_: s * 1.2))[key]
        assert cpu.result == "slower"
        assert cpu.regression() is regression
