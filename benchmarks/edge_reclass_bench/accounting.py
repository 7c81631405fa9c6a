"""The cascade's books: who entered and left each stage, what that should cost and does, and the alternatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from edge_reclass.verdict import Verdict
from edge_reclass_bench.orders import policy_of
from edge_reclass_bench.record import (
    Accounting,
    Baseline,
    Estimate,
    Expected,
    Proportion,
    Record,
    StageFlow,
)
from edge_reclass_bench.replay import Costs, Floats, costs_of, exits, vote
from edge_reclass_bench.statistics import accuracy, bootstrap_rows, macro_f1, paired_ratio, table, wilson

__all__ = ["account"]


def account(record: Record, verdicts: Mapping[str, Sequence[Verdict]]) -> Accounting:
    """The books of ``record``, whose measures, answers and tracks are there already.

    ``verdicts`` are those of each subject, one per track, and must have ``cascade``.
    """
    cascade = verdicts["cascade"]
    policy = policy_of(record.subject.policy)
    ok = [i for i, verdict in enumerate(cascade) if verdict.status == "ok"]
    costs = costs_of(record)
    entered = {name: [i for i in ok if name in {s.name for s in cascade[i].stages}] for name in policy.stages}
    flow = [
        StageFlow(
            stage=name,
            entered=len(entered[name]),
            exited=sum(cascade[i].decided_by == name for i in ok),
            reach=wilson(len(entered[name]), max(1, len(ok))),
            alone=_mean(record, "stage", f"single:{name}", name, "total"),
            inside=_mean(record, "single-stream", "cascade", name, "total"),
        )
        for name in policy.stages
    ]
    return Accounting(
        answered=len(ok),
        statuses=dict(Counter(verdict.status for verdict in cascade)),
        flow=flow,
        expected=None if costs is None else _expected(record, costs, cascade),
        baselines=_baselines(record, verdicts),
        replay_agrees=None if costs is None else _replay(record, costs, cascade),
    )


def _mean(record: Record, scenario: str, subject: str, stage: str | None, part: str) -> Estimate | None:
    for measure in record.find(scenario, subject, part=part, clock="host"):
        if measure.stage == stage:
            return measure.summary.mean
    return None


def _track_times(record: Record, subject: str) -> dict[int, float]:
    for measure in record.find("single-stream", subject, part="track"):
        cells, tracks = table(measure.samples, measure.tracks, measure.passes)
        return dict(zip(tracks, np.median(cells, axis=1).tolist(), strict=True)) if tracks else {}
    return {}


def _expected(record: Record, costs: Costs, cascade: Sequence[Verdict]) -> Expected | None:
    """See :class:`Expected`; all four over the tracks on which everything was measured."""
    policy = policy_of(record.subject.policy)
    times = _track_times(record, "cascade")
    rows = [row for row, track in enumerate(costs.tracks) if track in times and cascade[track].status == "ok"]
    if not rows:
        return None
    count = len(policy.stages)
    stages = costs.in_order(policy.stages)[rows]
    entered = np.array(
        [[name in {s.name for s in cascade[costs.tracks[row]].stages} for name in policy.stages] for row in rows],
        np.float64,
    )
    decode = costs.decode[rows][:, None]
    measured = np.array([[times[costs.tracks[row]]] for row in rows])
    cells = np.concatenate((decode, entered, stages, measured), axis=1)

    def expected(drawn: Floats) -> float:
        reach, cost = drawn[:, 1 : 1 + count].mean(axis=0), drawn[:, 1 + count : 1 + 2 * count].mean(axis=0)
        return float(drawn[:, 0].mean() + reach @ cost)

    def replayed(drawn: Floats) -> float:
        paid = drawn[:, 1 : 1 + count] * drawn[:, 1 + count : 1 + 2 * count]
        return float((drawn[:, 0] + paid.sum(axis=1)).mean())

    seed, resamples = record.settings.seed, record.settings.resamples
    return Expected(
        decode=bootstrap_rows(cells, lambda drawn: float(drawn[:, 0].mean()), seed=seed, resamples=resamples),
        expected=bootstrap_rows(cells, expected, seed=seed, resamples=resamples),
        replayed=bootstrap_rows(cells, replayed, seed=seed, resamples=resamples),
        measured=bootstrap_rows(cells, lambda drawn: float(drawn[:, -1].mean()), seed=seed, resamples=resamples),
    )


def _baselines(record: Record, verdicts: Mapping[str, Sequence[Verdict]]) -> list[Baseline]:
    """Every subject on the tracks that all of them answered."""
    times = {subject: _track_times(record, subject) for subject in verdicts}
    common = [
        i for i in range(len(record.tracks)) if all(verdicts[s][i].status == "ok" and i in times[s] for s in verdicts)
    ]
    if not common:
        return []
    seed, resamples = record.settings.seed, record.settings.resamples
    judged = [i for i in common if record.tracks[i].label in record.subject.genres]
    labels = [record.tracks[i].label or "" for i in judged]
    cost = {subject: np.array([times[subject][i] for i in common]) for subject in verdicts}
    reference = verdicts.get("ensemble")
    found = []
    for subject, said in verdicts.items():
        genres = [said[i].genre or "" for i in judged]
        found.append(
            Baseline(
                name=subject,
                stages=[report.name for report in max((said[i] for i in common), key=lambda v: len(v.stages)).stages],
                milliseconds=bootstrap_rows(
                    cost[subject], lambda drawn: float(drawn.mean()), seed=seed, resamples=resamples
                ),
                relative=(
                    None
                    if reference is None
                    else paired_ratio(cost["ensemble"], cost[subject], seed=seed, resamples=resamples)
                ),
                agreement=(
                    None
                    if reference is None
                    else wilson(sum(said[i].genre == reference[i].genre for i in common), len(common))
                ),
                accuracy=accuracy(genres, labels) if judged else None,
                macro_f1=macro_f1(genres, labels, seed=seed, resamples=resamples) if judged else None,
            )
        )
    return found


def _replay(record: Record, costs: Costs, cascade: Sequence[Verdict]) -> Proportion:
    policy = policy_of(record.subject.policy)
    probabilities = {
        answers.stage: [row for t in costs.tracks if (row := answers.probabilities[t]) is not None]
        for answers in record.answers
    }
    votes = vote(policy, probabilities)
    left = exits(votes, np.array([[step.accept or 0.0 for step in policy.steps[:-1]]]))[0]
    same = 0
    for i, track in enumerate(costs.tracks):
        verdict, step = cascade[track], int(left[i])
        replayed = (record.subject.genres[int(votes.genre[i, step])], policy.stages[step])
        same += replayed == (verdict.genre, verdict.decided_by)
    return wilson(same, len(costs.tracks))
