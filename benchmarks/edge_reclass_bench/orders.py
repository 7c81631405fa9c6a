"""Does another order of the stages cost less at equal agreement with the full ensemble? Replayed from one record.

For every order that the heads allow, three operating points (``Order.rule``):

``given``    the policy as it stands, its own order only.
``carried``  the policy's thresholds by position, and the weights of its last step. Simple, but an order that asks a
             different stage first then also *agrees* differently: costs at unequal agreement prove nothing.
``tuned``    the cheapest thresholds whose agreement with the full ensemble is at least ``target``; this is the
             comparison at equal agreement. Every order chooses among the same number of thresholds on the same tracks.

The interval of ``relative`` draws tracks with replacement and chooses thresholds anew in every resample, for both
orders: it holds the luck of choosing. Costs are Σ over the stages that a track enters of the stage's own median time
on that track (``replay.Costs``), plus decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Policy, Step
from edge_reclass.errors import UsageError
from edge_reclass_bench.policies import ensemble, orders, reordered
from edge_reclass_bench.record import Estimate, Order, PolicyRecord, Record
from edge_reclass_bench.replay import Costs, Floats, Ints, costs_of, exits, vote
from edge_reclass_bench.statistics import accuracy, bootstrap_rows, macro_f1, paired_ratio, wilson

__all__ = ["MOST_STAGES", "answer", "policy_of", "study"]

MOST_STAGES = 4
"""Orders grow factorially, thresholds exponentially."""
_GRID = {1: 129, 2: 33, 3: 13}
"""Thresholds tried per step, by the number of steps that have one."""


def policy_of(record: PolicyRecord) -> Policy:
    """The policy that a record keeps."""
    return Policy(record.name, record.vote, tuple(Step(s.after, s.weights, s.accept) for s in record.steps))


def study(record: Record, targets: Sequence[float] = ()) -> list[Order]:
    """Orders of the record's policy: ``given``, then for each order ``carried`` and, per target, ``tuned``.

    ``targets`` are shares of tracks, 0 to 1; without any, the agreement that the given policy has.

    Raises:
        UsageError: the record has no answers or no stage times, too many stages, or a target is out of range.
    """
    policy = policy_of(record.subject.policy)
    if len(policy.stages) > MOST_STAGES:
        raise UsageError(f"orders: expected at most {MOST_STAGES} stages, got {len(policy.stages)}")
    if any(not 0 <= target <= 1 for target in targets):
        raise UsageError(f"--target: expected shares from 0 to 1, got {', '.join(map(str, targets))}")
    costs = costs_of(record)
    if costs is None:
        raise UsageError(
            "the record has no stage answers and times to replay; measure with  --scenario stage,single-stream"
        )
    bench = _Bench(record, costs, policy)
    given = bench.point(policy, "given", np.array([[step.accept or 0.0 for step in policy.steps[:-1]]]))
    found = [given.order]
    needed = {answers.stage: answers.needs for answers in record.answers}
    every = [policy.stages, *(order for order in orders(policy.stages, needed) if order != policy.stages)]
    if len(every[0]) == 1:
        return found
    carried_accepts = [step.accept or 0.0 for step in policy.steps[:-1]]
    carried = [
        bench.point(reordered(policy, order, carried_accepts), "carried", np.array([carried_accepts]))
        for order in every
    ]
    found += [point.relative_to(carried[0]) for point in carried]
    for target in targets or [given.order.agreement.share]:
        tuned = [bench.tuned(reordered(policy, order, carried_accepts), target) for order in every]
        found += [bench.against(point, tuned[0], target) for point in tuned]
    return found


def answer(found: Sequence[Order]) -> list[str]:
    """What the tuned orders say, in words: the cheapest against the given order, at each target."""
    lines = []
    for target in dict.fromkeys(order.target for order in found if order.rule == "tuned"):
        tuned = [order for order in found if order.rule == "tuned" and order.target == target]
        own, best = tuned[0], min(tuned, key=lambda order: order.milliseconds.value)
        at = f"at agreement ≥ {target:.1%} with the full ensemble"
        if best is own or best.relative is None:
            lines.append(
                f"{at}: no order is cheaper than the given one, {_name(own)} ({own.milliseconds.value:.1f} ms)"
            )
            continue
        low, high = best.relative.low, best.relative.high
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        sure = "" if high is not None and high < 1 else "; the interval holds 1: not shown on these tracks"
        lines.append(
            f"{at}: {_name(best)} costs {best.milliseconds.value:.1f} ms, {_name(own)} {own.milliseconds.value:.1f} ms:"
            f" ratio {best.relative.value:.2f}{interval}{sure}"
        )
    return lines


def _name(order: Order) -> str:
    return " → ".join(order.stages)


@dataclass(frozen=True)
class _Point:
    order: Order
    cost: Floats  # float64[tracks]

    def relative_to(self, own: _Point) -> Order:
        return _with(self.order, paired_ratio(own.cost, self.cost))


@dataclass(frozen=True)
class _Tuned:
    """All thresholds of one order: cost and agreement [choices, tracks], and which choice is the cheapest."""

    policy: Policy
    accepts: Floats
    cost: Floats
    agrees: Floats
    best: int


class _Bench:
    def __init__(self, record: Record, costs: Costs, policy: Policy) -> None:
        self._record, self._costs = record, costs
        self._probabilities = {
            answers.stage: [row for t in costs.tracks if (row := answers.probabilities[t]) is not None]
            for answers in record.answers
        }
        self._ensemble: Ints = vote(ensemble(policy), self._probabilities).genre[:, -1]
        genres = record.subject.genres
        labels = [record.tracks[t].label for t in costs.tracks]
        self._judged = [i for i, label in enumerate(labels) if label in genres]
        self._labels = [labels[i] or "" for i in self._judged]
        self._genres = genres
        self._seed, self._resamples = record.settings.seed, record.settings.resamples

    def _outcomes(self, policy: Policy, accepts: Floats) -> tuple[Floats, Ints, Ints]:
        """Cost and genre [choices, tracks], and the step at which each track left."""
        votes = vote(policy, self._probabilities)
        left = exits(votes, accepts)
        upto = np.cumsum(self._costs.in_order(policy.stages), axis=1)
        rows = np.arange(len(self._costs.tracks))[None, :]
        return self._costs.decode + upto[rows, left], votes.genre[rows, left], left

    def point(self, policy: Policy, rule: str, accepts: Floats, target: float | None = None) -> _Point:
        """One operating point: ``accepts`` has one row."""
        cost, genre, left = self._outcomes(policy, accepts)
        agreed = int((genre[0] == self._ensemble).sum())
        said = [self._genres[genre[0, i]] for i in self._judged]
        judged = {"seed": self._seed, "resamples": self._resamples}
        order = Order(
            stages=list(policy.stages),
            rule=rule,  # type: ignore[arg-type]
            accepts=[round(float(value), 6) for value in accepts[0]],
            milliseconds=bootstrap_rows(cost[0], lambda drawn: float(drawn.mean()), **judged),
            reach=[float((left[0] >= step).mean()) for step in range(len(policy.steps))],
            agreement=wilson(agreed, len(self._ensemble)),
            target=target,
            accuracy=accuracy(said, self._labels) if said else None,
            macro_f1=macro_f1(said, self._labels, **judged) if said else None,
        )
        return _Point(order, cost[0])

    def tuned(self, policy: Policy, target: float) -> _Tuned:
        """Every choice of thresholds on a grid of the confidences that were seen."""
        votes = vote(policy, self._probabilities)
        steps = len(policy.steps) - 1
        size = _GRID[steps]
        axes = []
        for step in range(steps):
            seen = np.unique(votes.confidence[:, step])
            chosen = seen if len(seen) <= size - 2 else np.quantile(seen, np.linspace(0, 1, size - 2), method="nearest")
            axes.append(np.unique(np.concatenate(([0.0], chosen, [1.0]))))
        accepts = np.array(list(product(*axes)))
        cost, genre, _ = self._outcomes(policy, accepts)
        agrees = (genre == self._ensemble).astype(np.float64)
        return _Tuned(policy, accepts, cost, agrees, _cheapest(cost.mean(axis=1), agrees.mean(axis=1), target))

    def against(self, point: _Tuned, own: _Tuned, target: float) -> Order:
        """The cheapest choice as an order; its cost relative to the given order's, both chosen anew per resample."""
        order = self.point(point.policy, "tuned", point.accepts[[point.best]], target).order
        value = float(point.cost[point.best].mean() / own.cost[own.best].mean())
        count = len(self._ensemble)
        if point is own or count < 6:
            return _with(order, Estimate(value=value))
        drawn = np.random.default_rng(self._seed).multinomial(count, [1 / count] * count, self._resamples).T / count
        ratios = _best_costs(point, drawn, target) / _best_costs(own, drawn, target)
        low, high = np.percentile(ratios, [2.5, 97.5])
        return _with(order, Estimate(value=value, low=float(low), high=float(high)))


def _cheapest(cost: Floats, agreement: Floats, target: float) -> int:
    """The cheapest choice with enough agreement; the full ensemble (all thresholds 1) always has it."""
    enough = agreement >= target - 1e-9
    return int(np.where(enough, cost, np.inf).argmin())


def _best_costs(point: _Tuned, drawn: Floats, target: float) -> Floats:
    """float64[resamples]: the cheapest choice's cost in each resample; ``drawn`` has each track's weight in it."""
    cost: Floats = point.cost @ drawn
    enough: NDArray[np.bool_] = point.agrees @ drawn >= target - 1e-9
    best: Floats = np.where(enough, cost, np.inf).min(axis=0)
    return best


def _with(order: Order, relative: Estimate) -> Order:
    return msgspec.structs.replace(order, relative=relative)
