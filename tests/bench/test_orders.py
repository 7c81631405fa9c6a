"""Replay, expected cost and orders, on answers whose outcome is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest

from bench.sample import make_record
from edge_reclass.cascade.policy import Policy, Step
from edge_reclass.errors import UsageError
from edge_reclass.verdict import ExcerptSeen, Score, StageReport, Verdict
from edge_reclass_bench.accounting import account
from edge_reclass_bench.orders import answer, policy_of, study
from edge_reclass_bench.record import Measure, PolicyRecord, Record, StageAnswers, StepRecord
from edge_reclass_bench.replay import Votes, costs_of, exits, vote
from edge_reclass_bench.statistics import summarise

GENRES = ("Alpha", "Beta", "Gamma")
TRACKS = 12
COST = {"fma": 10.0, "mert": 1000.0, "jmla": 100.0}


def _measure(scenario: str, subject: str, stage: str | None, part: str, costs: Sequence[float]) -> Measure:
    samples = list(costs) * 3
    tracks = list(range(len(costs))) * 3
    passes = [i // len(costs) for i in range(len(samples))]
    return Measure(
        scenario=scenario,
        subject=subject,
        stage=stage,
        part=part,
        unit="ms",
        samples=samples,
        tracks=tracks,
        passes=passes,
        summary=summarise(samples, tracks, passes, resamples=50),
    )


def _rows(genres: Sequence[int], confidences: Sequence[float]) -> list[list[float] | None]:
    rows: list[list[float] | None] = []
    for genre, confidence in zip(genres, confidences, strict=True):
        rest = (1 - confidence) / 2
        rows.append([confidence if g == genre else rest for g in range(3)])
    return rows


def _record(rows: Mapping[str, list[list[float] | None]], needs: Mapping[str, list[str]] | None = None) -> Record:
    """A record of three stages that cost 10, 1000 and 100 ms on every track, and decode 5 ms."""
    measures = [_measure("single-stream", "cascade", None, "decode", [5.0] * TRACKS)]
    for stage, cost in COST.items():
        measures.append(_measure("stage", f"single:{stage}", stage, "total", [cost] * TRACKS))
        measures.append(_measure("stage", f"single:{stage}", stage, "resample", [cost / 10] * TRACKS))
    policy = PolicyRecord(
        name="ladder",
        vote="soft",
        steps=[
            StepRecord(after="fma", weights={"fma": 1.0}, accept=0.8),
            StepRecord(after="mert", weights={"fma": 0.2, "mert": 0.8}, accept=0.7),
            StepRecord(after="jmla", weights={"fma": 0.1, "mert": 0.45, "jmla": 0.45}),
        ],
    )
    base = make_record()
    return msgspec.structs.replace(
        base,
        subject=msgspec.structs.replace(base.subject, genres=list(GENRES), policy=policy),
        measures=measures,
        answers=[
            StageAnswers(stage=stage, needs=(needs or {}).get(stage, []), signal=stage, probabilities=rows[stage])
            for stage in COST
        ],
        accounting=None,
        orders=[],
    )


TRUE = [i % 3 for i in range(TRACKS)]


@pytest.fixture
def alike() -> Record:
    """fma is unsure of half of the tracks; mert and jmla are both sure and right, so that either will do."""
    return _record(
        {
            "fma": _rows(TRUE, [0.9 if i % 2 else 0.4 for i in range(TRACKS)]),
            "mert": _rows(TRUE, [0.95] * TRACKS),
            "jmla": _rows(TRUE, [0.95] * TRACKS),
        }
    )


def test_the_cheaper_of_two_equals_has_to_come_first(alike: Record) -> None:
    orders = {(order.stages[0], order.stages[1], order.rule): order for order in study(alike)}
    own, other = orders["fma", "mert", "carried"], orders["fma", "jmla", "carried"]
    # decode + fma + half of the tracks through the second stage, where everyone leaves.
    assert own.milliseconds.value == pytest.approx(5 + 10 + 500)
    assert other.milliseconds.value == pytest.approx(5 + 10 + 50)
    assert own.agreement.share == other.agreement.share == 1.0
    assert own.reach == [1.0, 0.5, 0.0]
    assert other.relative is not None
    assert other.relative.value == pytest.approx(65 / 515)


def test_at_equal_agreement_the_answer_is_said_in_words(alike: Record) -> None:
    # Let fma be wrong where it is unsure, so that no order can do without a second stage.
    wrong = _rows([g if i % 2 else (g + 1) % 3 for i, g in enumerate(TRUE)], [0.9 if i % 2 else 0.4 for i in range(12)])
    answers = [msgspec.structs.replace(alike.answers[0], probabilities=wrong), *alike.answers[1:]]
    found = study(msgspec.structs.replace(alike, answers=answers))
    tuned = {tuple(order.stages): order for order in found if order.rule == "tuned"}
    assert tuned["fma", "mert", "jmla"].milliseconds.value == pytest.approx(515)
    assert tuned["fma", "jmla", "mert"].milliseconds.value == pytest.approx(65)
    assert all(order.agreement.share >= 1.0 for order in tuned.values())
    best = tuned["fma", "jmla", "mert"].relative
    assert best is not None and best.high is not None and best.high < 1
    (line,) = answer(found)
    assert "at agreement ≥ 100.0%" in line
    assert "fma → jmla → mert costs 65.0 ms, fma → mert → jmla 515.0 ms: ratio 0.13" in line
    assert "not shown" not in line


def test_an_order_that_does_not_help_is_not_praised() -> None:
    # jmla is of no use: it is sure of the wrong genre, and the ensemble follows mert and fma.
    wrong = [(genre + 1) % 3 for genre in TRUE]
    record = _record(
        {
            "fma": _rows(TRUE, [0.5] * TRACKS),
            "mert": _rows(TRUE, [0.99] * TRACKS),
            "jmla": _rows(wrong, [0.6] * TRACKS),
        }
    )
    found = study(record, [1.0])
    assert answer(found)[0].endswith("no order is cheaper than the given one, fma → mert → jmla (15.0 ms)")


def test_heads_limit_the_orders(alike: Record) -> None:
    answers = [msgspec.structs.replace(each, needs=["fma"] if each.stage == "jmla" else []) for each in alike.answers]
    found = study(msgspec.structs.replace(alike, answers=answers))
    assert all(order.stages.index("fma") < order.stages.index("jmla") for order in found)
    assert len({tuple(order.stages) for order in found}) == 3


def test_a_signal_is_resampled_once(alike: Record) -> None:
    shared = [msgspec.structs.replace(each, signal="the same") for each in alike.answers]
    costs = costs_of(msgspec.structs.replace(alike, answers=shared))
    assert costs is not None
    assert costs.in_order(["fma", "jmla"])[0].tolist() == [10.0, 90.0]
    assert costs.in_order(["jmla", "fma"])[0].tolist() == [100.0, 9.0]
    alone = costs_of(alike)
    assert alone is not None
    assert alone.in_order(["jmla", "fma"])[0].tolist() == [100.0, 10.0]


def test_tracks_without_every_answer_are_left_out(alike: Record) -> None:
    rows = list(alike.answers[1].probabilities)
    rows[3] = None
    answers = [alike.answers[0], msgspec.structs.replace(alike.answers[1], probabilities=rows), alike.answers[2]]
    found = study(msgspec.structs.replace(alike, answers=answers))
    assert found[0].agreement.total == TRACKS - 1


def test_a_record_without_answers_says_what_to_measure(alike: Record) -> None:
    with pytest.raises(UsageError, match="--scenario stage,single-stream"):
        study(msgspec.structs.replace(alike, answers=[]))
    with pytest.raises(UsageError, match="--target"):
        study(alike, [1.5])


def test_exits_follow_the_thresholds_strictly() -> None:
    votes = Votes(np.zeros((3, 3), np.int64), np.array([[0.8, 0.5, 0.1], [0.81, 0.1, 0.1], [0.1, 0.71, 0.1]]))
    assert exits(votes, np.array([[0.8, 0.7], [1.0, 1.0], [0.0, 0.0]])).tolist() == [[2, 0, 1], [2, 2, 2], [0, 0, 0]]
    assert exits(Votes(np.zeros((2, 1), np.int64), np.ones((2, 1))), np.zeros((1, 0))).tolist() == [[0, 0]]


def test_votes_are_those_of_the_runtimes_policy() -> None:
    policy = Policy("p", "top1", (Step("a", {"a": 1.0}, 0.5), Step("b", {"a": 0.4, "b": 0.6})))
    votes = vote(policy, {"a": [(0.7, 0.3)], "b": [(0.1, 0.9)]})
    assert votes.genre.tolist() == [[0, 1]]
    assert votes.confidence[0].tolist() == pytest.approx([0.7, 0.54])


def _verdict(record: Record, track: int, stages: Sequence[str], policy: Policy) -> Verdict:
    """What the runtime would say of this track."""
    probabilities = {each.stage: [row for row in each.probabilities if row is not None] for each in record.answers}
    genre = int(vote(policy, probabilities).genre[track, len(stages) - 1])
    return Verdict(
        f"track{track}",
        "ok",
        "b",
        policy.name,
        genre=GENRES[genre],
        decided_by=stages[-1],
        top=(Score(GENRES[genre], 1.0),),
        stages=tuple(StageReport(name, GENRES[genre], 0.5, COST[name], ExcerptSeen(0, 30)) for name in stages),
    )


def _booked(record: Record, cascade: list[Verdict]) -> Record:
    """With the cascade's own times: what its stages cost, decode, and 2 ms that no part explains."""
    times = [5.0 + 2.0 + sum(COST[report.name] for report in verdict.stages) for verdict in cascade]
    measures = [*record.measures, _measure("single-stream", "cascade", None, "track", times)]
    ensemble = [5.0 + 2.0 + sum(COST.values())] * TRACKS
    measures.append(_measure("single-stream", "ensemble", None, "track", ensemble))
    return msgspec.structs.replace(record, measures=measures)


def test_the_books_balance(alike: Record) -> None:
    policy = policy_of(alike.subject.policy)
    cascade = [_verdict(alike, i, ["fma"] if i % 2 else ["fma", "mert"], policy) for i in range(TRACKS)]
    everyone = [_verdict(alike, i, ["fma", "mert", "jmla"], policy) for i in range(TRACKS)]
    books = account(_booked(alike, cascade), {"cascade": cascade, "ensemble": everyone})
    assert [(flow.stage, flow.entered, flow.exited) for flow in books.flow] == [
        ("fma", 12, 6),
        ("mert", 6, 6),
        ("jmla", 0, 0),
    ]
    assert books.expected is not None
    assert books.expected.decode.value == pytest.approx(5.0)
    assert books.expected.expected.value == pytest.approx(5 + 10 + 0.5 * 1000)
    assert books.expected.replayed.value == pytest.approx(515)
    assert books.expected.measured.value == pytest.approx(517)
    assert books.replay_agrees is not None
    assert (books.replay_agrees.count, books.replay_agrees.total) == (12, 12)
    own, ensemble = books.baselines
    assert own.relative is not None
    assert own.relative.value == pytest.approx(517 / 1117)
    assert own.agreement is not None and own.agreement.share == 1.0
    assert ensemble.relative is not None and ensemble.relative.value == 1.0
    assert own.accuracy is not None and own.accuracy.total == 12


def test_costly_tracks_that_go_on_make_the_expectation_wrong_and_the_replay_right(alike: Record) -> None:
    policy = policy_of(alike.subject.policy)
    cascade = [_verdict(alike, i, ["fma"] if i % 2 else ["fma", "mert"], policy) for i in range(TRACKS)]
    costs = [1500.0 if i % 2 == 0 else 500.0 for i in range(TRACKS)]
    measures = [m for m in alike.measures if m.key != "stage/single:mert/mert/total/warm/host"]
    measures.append(_measure("stage", "single:mert", "mert", "total", costs))
    books = account(_booked(msgspec.structs.replace(alike, measures=measures), cascade), {"cascade": cascade})
    assert books.expected is not None
    assert books.expected.expected.value == pytest.approx(515)
    assert books.expected.replayed.value == pytest.approx(15 + 750)


def test_a_replay_that_disagrees_is_counted(alike: Record) -> None:
    policy = policy_of(alike.subject.policy)
    cascade = [_verdict(alike, i, ["fma"], policy) for i in range(TRACKS)]  # as if fma had always decided
    books = account(_booked(alike, cascade), {"cascade": cascade})
    assert books.replay_agrees is not None
    assert books.replay_agrees.count == 6


def test_tracks_that_failed_are_in_the_statuses_and_nowhere_else(alike: Record) -> None:
    policy = policy_of(alike.subject.policy)
    cascade = [_verdict(alike, i, ["fma"] if i % 2 else ["fma", "mert"], policy) for i in range(TRACKS)]
    cascade[0] = Verdict("track0", "silent", "b", "p")
    books = account(_booked(alike, cascade), {"cascade": cascade})
    assert books.statuses == {"silent": 1, "ok": 11}
    assert books.answered == books.flow[0].entered == 11
    assert books.baselines[0].accuracy is not None
    assert books.baselines[0].accuracy.total == 11
