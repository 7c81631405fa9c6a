"""What follows from a record: who leaves where, what that costs and saves, targets, doubts."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bench.sample import FMA, MERT, changed, make_record
from edge_reclass_bench.books import Books
from edge_reclass_bench.doubts import doubts, doubts_of
from edge_reclass_bench.record import StepRecord, TrackEntry
from edge_reclass_bench.scenarios.agreement import bound
from edge_reclass_bench.targets import targets


@pytest.fixture(scope="module")
def books() -> Books:
    return Books(make_record(noise=0.0, between=0.001))


def test_the_flow_is_that_of_the_verdicts(books: Books) -> None:
    assert [(f.stage, f.entered, f.exited) for f in books.flow] == [("fma", 12, 6), ("mert", 6, 3), ("jmla", 3, 3)]
    assert books.statuses == {"ok": 12}
    assert books.flow[1].reach.share == 0.5


def test_the_cascade_costs_what_its_stages_cost(books: Books) -> None:
    costs = books.costs
    assert costs is not None
    assert costs.replayed.value == pytest.approx(costs.measured.value, rel=0.01)
    assert costs.residual.value == pytest.approx(costs.measured.value - costs.replayed.value)
    reach = [f.reach.share for f in books.flow]
    alone = [f.alone.value for f in books.flow if f.alone is not None]
    assert costs.expected.value == pytest.approx(costs.decode.value + np.dot(reach, alone), rel=1e-3)


def test_every_way_is_compared_on_the_same_tracks(books: Books) -> None:
    ways = {way.subject: way for way in books.ways}
    assert ways["ensemble"].relative is not None and ways["ensemble"].relative.value == 1.0
    cascade = ways["cascade"]
    assert cascade.relative is not None and 0.4 < cascade.relative.value < 0.6
    assert cascade.agreement is not None and cascade.agreement.share == 1.0
    assert cascade.accuracy is not None and (cascade.accuracy.count, cascade.accuracy.total) == (11, 11)
    # Terms mean one thing: a stage whose head takes another's embedding is not that stage alone.
    assert ways["single:mert"].name == "fma + mert, no exit"
    assert ways["single:fma"].name == "fma alone"


def test_targets_are_met_missed_or_not_measured(books: Books) -> None:
    assert [target.met for target in targets(books)] == [True, True, True, True]
    slow = Books(make_record(slower={"fma": 40.0}))
    assert [target.met for target in targets(slow)] == [False, False, True, True]
    bare = Books(msgspec.structs.replace(books.record, measures=[], runs=[], answers=[]))
    assert [target.met for target in targets(bare)] == [None] * 4


def test_agreement_has_a_bound() -> None:
    found = list(bound(make_record().files))
    assert [(file.precision, round(low, 3)) for file, low in found] == [("fp32", 0.779), ("fp16", 0.661)]


def test_a_steady_record_gives_no_doubts() -> None:
    assert doubts(Books(make_record(noise=0.01))) == []


def test_an_unsteady_one_says_why() -> None:
    record = make_record(noise=0.01, processes=3)
    run = msgspec.structs.replace(record.runs[0], other_cpu=1.3, throttled=["thermal slowdown"])
    machine = msgspec.structs.replace(record.subject.machine, clocks="400 to 2000 MHz")
    record = msgspec.structs.replace(
        record,
        runs=[run],
        complete=False,
        subject=msgspec.structs.replace(record.subject, machine=machine, synthetic=True),
        tracks=[msgspec.structs.replace(record.tracks[0], status="corrupt"), *record.tracks[1:]],
        warnings=["its own"],
    )
    for key in (FMA, MERT):
        record = changed(record, key, lambda samples, passes, _: samples * np.where(passes >= 2, 1.3, 1.0))
    found = doubts(Books(record))
    for part in (
        "broken off",
        "3 processes: no measurement error",
        "1 of 12 tracks have no genre",
        "untrained weights",
        "clocks are not locked (400 to 2000 MHz)",
        "up to 1.30 of 4 processors",
        "thermal slowdown",
        "drift: the second half of the passes differs from the first: 2 measures",
        "its own",
    ):
        assert sum(part in line for line in found) == 1, part


def test_doubts_of_several_records_are_each_told_once() -> None:
    calm, few = Books(make_record(noise=0.01)), Books(make_record(noise=0.01, processes=2))
    assert doubts_of([("A", calm), ("B", few), ("C", few)])[0].startswith("B, C: 2 processes")


def listening_less(heard: dict[int, tuple[int, int]], *, all_of_it: bool) -> Books:
    """Mert is asked after 1 and 3 windows, and after ``all_of_it``; ``heard``: for the tracks that enter mert."""
    record = make_record()
    steps = record.subject.policy.steps
    some = [StepRecord(after="mert", weights={"mert": 1.0}, accept=0.8, windows=n) for n in (1, 3)]
    made = [steps[0], *some, *steps[1 if all_of_it else 2 :]]
    policy = msgspec.structs.replace(record.subject.policy, steps=made)

    def with_windows(i: int, track: TrackEntry) -> TrackEntry:
        windows = [heard[i] if stage == "mert" else (1, 1) for stage in track.entered]
        return msgspec.structs.replace(track, windows=windows)

    return Books(
        msgspec.structs.replace(
            record,
            subject=msgspec.structs.replace(record.subject, policy=policy),
            tracks=[with_windows(i, track) for i, track in enumerate(record.tracks)],
        )
    )


def test_the_funnel_has_a_row_per_step_of_windows() -> None:
    books = listening_less({0: (6, 6), 2: (1, 6), 4: (6, 6), 6: (3, 6), 8: (6, 6), 10: (1, 1)}, all_of_it=True)
    rows = [(f.name, f.entered, f.exited) for f in books.flow]
    assert rows == [
        ("fma", 12, 6),
        ("mert, 1 window", 5, 1),  # one has a single window: its last step judges
        ("mert, 3 windows", 4, 1),
        ("mert, all windows", 4, 1),
        ("jmla", 3, 3),
    ]
    assert books.flow[1].alone is None and books.flow[3].alone is not None
    whole = Books(make_record()).costs
    assert books.costs is not None and whole is not None
    assert books.costs.expected.value < whole.expected.value  # what is not heard is not paid


def test_the_funnel_of_a_stage_that_never_hears_all() -> None:
    books = listening_less({0: (3, 6), 2: (1, 6), 4: (3, 6), 6: (3, 6), 8: (3, 6), 10: (1, 1)}, all_of_it=False)
    rows = [(f.name, f.entered, f.exited) for f in books.flow]
    assert rows == [("fma", 12, 6), ("mert, 1 window", 5, 1), ("mert, 3 windows", 5, 2), ("jmla", 3, 3)]
