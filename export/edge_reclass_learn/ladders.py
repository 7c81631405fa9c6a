"""One order of stages with all of its steps, and the search for where to stop. Numbers only.

What is said after each step is asked of the core's own :func:`edge_reclass.cascade.decide`, once for each stage, count
of windows and run of stages before it.

A threshold for every step is sought from a grid, by coordinate descent on ``cost + price × wrong answers`` over a range
of prices and twice (from never stopping, and from the best that another price found). The cheapest that is good enough
is then improved within what may go wrong, step by step and by moves of one step that the others follow. A step whose
threshold is ``never`` is left out, which chooses the windows. All sets of tracks are searched at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Policy, Step, decide
from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Answers, Costs, StageFacts
from edge_reclass_learn.replaying import NEVER, NOTHING

_SWEEPS = 4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Rung:
    """What is said at one step, per track: the genre, and the confidence with which the step may stop there.

    ``sure`` is -1 where the track has no answer of this step, its stage abstains, or it may not end the cascade early.
    """

    genre: Ints
    sure: Floats


class Sayings:
    """What the core decides after each stage, count of windows and run of stages before; each is asked once."""

    def __init__(self, answers: Answers, vote: str) -> None:
        self._answers, self.vote = answers, vote
        self._known: dict[object, _Rung] = {}

    def after(self, done: tuple[str, ...], windows: int | None, weights: Mapping[str, float]) -> _Rung:
        """After all of the stages ``done`` but the last, and ``windows`` of that one (None: all)."""
        if all(weights.get(name) for name in done):
            # No vote depends on the order then, not even where the last stages are silent.
            done = (*sorted(done[:-1]), done[-1])
        key = (done, windows, tuple(_weights(weights, done).items()))
        if key not in self._known:
            self._known[key] = self._ask(done, windows, weights)
        return self._known[key]

    def _ask(self, done: tuple[str, ...], windows: int | None, weights: Mapping[str, float]) -> _Rung:
        steps = [Step(name, _weights(weights, done[: i + 1]), NEVER) for i, name in enumerate(done)]
        if windows is not None:
            steps.insert(-1, Step(done[-1], steps[-1].weights, 0.0, windows))
        policy, n = Policy("asked", self.vote, tuple(steps)), len(self._answers.tracks)
        genre, sure = np.full(n, NOTHING), np.full(n, -1.0)
        for i, track in enumerate(self._answers.tracks):
            heard = [track.stages[name].said[-1] for name in done]
            if windows is not None:
                early = [said for said in track.stages[done[-1]].said[:-1] if said.windows == windows]
                if not early:
                    continue
                heard[-1] = early[0]
            found = (self._answers.answer(name, said) for name, said in zip(done, heard, strict=True))
            given = tuple(answer for answer in found if answer is not None)
            if not given:
                continue
            decision = decide(
                policy, given, after=done[-1], windows=windows, min_confidence=self._answers.min_confidence
            )
            genre[i] = NOTHING if decision.unsure else decision.genre
            unlike = all(one.abstains for one in given) or any(one.outside and not one.abstains for one in given)
            may_stop = decision.stop and not decision.unsure and not unlike
            # Where a stage is silent or abstains, the core asks the step before again, which did not stop.
            if may_stop and heard[-1].probabilities is not None and not heard[-1].abstains:
                sure[i] = min(decision.confidence, 1.0)
        return _Rung(genre, sure)


def _weights(weights: Mapping[str, float], done: Sequence[str]) -> dict[str, float]:
    """The weights of the stages that have answered; where they have none, the last one decides alone."""
    return {name: weights[name] for name in done if weights.get(name)} or {done[-1]: 1.0}


def orders(answers: Answers, most: int) -> list[tuple[str, ...]]:
    """Every order of every set of stages in which all that a head takes has run before, few stages first.

    Raises:
        UsageError: there are more than ``most``.
    """
    found = list(itertools.islice(_orders(answers.stages, ()), most + 1))
    if len(found) > most:
        raise UsageError(f"{len(answers.stages)} stages have too many orders, more than {most}; take some stages out")
    return sorted(found, key=len)


def _orders(stages: Sequence[StageFacts], done: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for facts in stages:
        if facts.name not in done and set(facts.needs) <= set(done):
            yield (*done, facts.name)
            yield from _orders(stages, (*done, facts.name))


def ladder(
    answers: Answers,
    said: Sayings,
    costs: Costs,
    order: tuple[str, ...],
    weights: Mapping[str, float],
    truth: Ints,
    known: Bools,
    grid: Sequence[float],
) -> Ladder:
    """The steps of one ``order``, with what each says of every track and costs.

    ``truth`` int[N]: the right answers, where ``known`` bool[N].
    """
    steps, rungs, spent = [], [], []
    so_far, signals = costs.decode, set()
    for i, name in enumerate(order):
        facts = answers.facts(name)
        if facts.signal not in signals:
            so_far = so_far + costs.resample[facts.signal]
            signals.add(facts.signal)
        for windows in (*facts.windows, None):
            done = order[: i + 1]
            steps.append(Step(name, _weights(weights, done), NEVER, windows))
            rungs.append(said.after(done, windows, weights))
            spent.append(so_far + costs.until[name][windows])
        so_far = spent[-1]
    genre = np.array([rung.genre for rung in rungs])
    # Descending, so that of two that stop the same tracks the higher one is taken, and never before all.
    thresholds = (NEVER, *sorted(set(grid), reverse=True))
    sure = np.array([rung.sure for rung in rungs[:-1]]).reshape(len(rungs) - 1, len(truth))
    first = (sure[:, :, None] <= np.array(thresholds)).sum(axis=2)
    first[sure < 0] = len(thresholds)
    return Ladder(order, said.vote, tuple(steps), thresholds, genre, np.array(spent), (genre != truth) & known, first)


class Best(NamedTuple):
    """What a search found: F rows of tracks, M budgets, S steps.

    cost: float[F, M], infinite where nothing is within the budget, of choice: int[F, M, S - 1].
    least: float[F], how many are wrong where fewest are, of least_choice: int[F, S - 1].
    """

    cost: Floats
    choice: Ints
    least: Floats
    least_choice: Ints


@dataclass(frozen=True)
class Ladder:
    """One order of stages, with all of their steps; the last has no threshold. S steps, N tracks, K thresholds.

    genre, cost, bad [S, N]: what is said, spent and wrong where a track stops at a step.
    first [S - 1, N]: a track stops at a step whose choice (a number of ``thresholds``) is at least this.
    """

    order: tuple[str, ...]
    vote: str
    steps: tuple[Step, ...]
    thresholds: tuple[float, ...]
    genre: Ints
    cost: Floats
    bad: Bools
    first: Ints

    def _stopped(self, step: int) -> Floats:
        """1 where a choice stops a track at ``step``: float64[N, K]."""
        stopped: Floats = (self.first[step][:, None] <= np.arange(len(self.thresholds))).astype(np.float64)
        return stopped

    def policy(self, name: str, choice: Ints) -> Policy:
        """The policy with these thresholds; steps before all of a stage's windows that never stop are left out."""
        steps = [
            Step(step.after, step.weights, self.thresholds[number], step.windows)
            for step, number in zip(self.steps[:-1], choice, strict=True)
            if number or step.windows is None
        ]
        last = self.steps[-1]
        return Policy(name, self.vote, (*steps, Step(last.after, last.weights)))

    def where(self, choice: Ints) -> Ints:
        """The step at which each track stops: int[rows, N] for choices int[rows, S - 1]."""
        last = np.full((len(choice), self.genre.shape[1]), len(self.steps) - 1)
        for s in reversed(range(len(self.first))):
            last[choice[:, s, None] >= self.first[s]] = s
        return last

    def search(self, train: Bools, budgets: Floats, prices: Floats, *, rough: bool = False) -> Best:
        """The cheapest choices on the tracks ``train`` (bool[F, N]) with at most ``budgets`` (float[F, M]) wrong.

        ``prices`` float[P], of a wrong answer. ``rough``: one descent for each, to compare orders of stages.
        """
        rows, many, steps = len(train), len(prices), len(self.first)
        lines, price = np.repeat(train, many, axis=0), np.tile(prices, rows)[:, None]
        tried = [np.zeros((rows, 1, steps), np.int64)]  # all that can be heard
        choice = self._cheapest(np.zeros((rows * many, steps), np.int64), lines, price)
        tried.append(choice.reshape(rows, many, steps))
        if not rough:
            spent, wrong = (sums.reshape(rows, 1, many) for sums in self._sums(choice, lines))
            best = (spent + prices[None, :, None] * wrong).argmin(axis=2) + many * np.arange(rows)[:, None]
            tried.append(self._cheapest(choice[best.ravel()], lines, price).reshape(rows, many, steps))
        choices, number = np.concatenate(tried, axis=1), np.arange(rows)
        lines = np.repeat(train, choices.shape[1], axis=0)
        cost, bad = (sums.reshape(rows, -1) for sums in self._sums(choices.reshape(len(lines), steps), lines))
        least = np.lexsort((cost, bad), axis=1)[:, 0]
        allowed = np.where(bad[:, None, :] <= budgets[:, :, None], cost[:, None, :], np.inf)  # [F, M, tried]
        choice, total = choices[number[:, None], allowed.argmin(axis=2)], allowed.min(axis=2)
        reached = total < np.inf
        if not rough and reached.any():
            lines = train[np.nonzero(reached)[0]]
            choice[reached] = self._within(choice[reached], lines, budgets[reached])
            total[reached] = self._sums(choice[reached], lines)[0]
        return Best(total, choice, bad[number, least], choices[number, least])

    def _sums(self, choice: Ints, train: Bools) -> tuple[Floats, Floats]:
        """Cost and number of wrong answers on the tracks ``train`` (bool[rows, N])."""
        where = self.where(choice)
        tracks = np.arange(where.shape[1])
        return (self.cost[where, tracks] * train).sum(axis=1), (self.bad[where, tracks] & train).sum(axis=1) * 1.0

    def _alive(self, choice: Ints, train: Bools) -> Bools:
        """Which tracks ``train`` come to each step but the last: bool[S - 1, rows, N]."""
        alive = np.empty((len(self.first), *train.shape), np.bool_)
        left = train.copy()
        for s, first in enumerate(self.first):
            alive[s] = left
            left &= choice[:, s, None] < first
        return alive

    def _cheapest(self, choice: Ints, train: Bools, price: Floats) -> Ints:
        """Coordinate descent on cost + price × wrong (``price`` float[rows, 1]), from the last step to the first."""
        choice = choice.copy()
        for _ in range(_SWEEPS):
            before, alive = choice.copy(), self._alive(choice, train)
            after = self.cost[-1] + price * self.bad[-1]
            for s in reversed(range(len(self.first))):
                here = self.cost[s] + price * self.bad[s]
                saved = after - here
                saved *= alive[s]
                choice[:, s] = _first_best(saved @ self._stopped(s))
                np.copyto(after, here, where=choice[:, s, None] >= self.first[s])
            if (choice == before).all():
                break
        return choice

    def polish(self, choice: Ints, train: Bools, budget: Floats) -> tuple[Floats, Ints]:
        """Better choices near those of a search, for each line: their cost float[rows], and int[rows, S - 1].

        One step is moved at a time, by one threshold or to never, where it stays until the others have given up
        or taken what that frees or needs; the best of all such moves is kept, and moved again.
        """
        choice, cost = choice.copy(), self._sums(choice, train)[0]
        lines = np.arange(len(choice))  # that are not done
        for _ in range(_SWEEPS):
            before = cost.copy()
            for s, move in itertools.product(range(len(self.first)), (-1, 1, 0)):
                moved = choice[lines]
                moved[:, s] = np.clip(moved[:, s] + move, 0, len(self.thresholds) - 1) if move else 0
                moved = self._within(moved, train[lines], budget[lines], hold=s)
                spent, wrong = self._sums(moved, train[lines])
                gain = (wrong <= budget[lines]) & (spent < cost[lines] - 1e-6)
                choice[lines[gain]], cost[lines[gain]] = moved[gain], spent[gain]
            lines = lines[cost[lines] < before[lines]]
        return cost, choice

    def _within(self, choice: Ints, train: Bools, budget: Floats, hold: int | None = None) -> Ints:
        """Coordinate descent on cost alone, to choices with at most ``budget`` (float[rows]) wrong answers.

        Where the ones it begins with are beyond it, it goes back towards it first. ``hold``: a step whose choice stays,
        in the first sweep.
        """
        choice, wrong = choice.copy(), self._sums(choice, train)[1]
        number = np.arange(len(choice))
        for sweep in range(2 if hold is not None else _SWEEPS):
            before, alive = choice.copy(), self._alive(choice, train)
            cost, bad = self.cost[-1], self.bad[-1] * 1.0  # of going on, and then for each line its own
            for s in reversed(range(len(self.first))):
                stopped = self._stopped(s)
                gains = ((cost - self.cost[s]) * alive[s]) @ stopped
                more = ((self.bad[s] - bad) * alive[s]) @ stopped
                without = wrong - more[number, choice[:, s]]
                if s != hold or sweep:
                    over = np.maximum(without[:, None] + more - budget[:, None] - 1e-6, 0.0)
                    nearest = over.min(axis=1, keepdims=True)
                    choice[:, s] = _first_best(np.where(over <= nearest, gains, -np.inf))
                wrong = without + more[number, choice[:, s]]
                stops = choice[:, s, None] >= self.first[s]
                cost, bad = np.where(stops, self.cost[s], cost), np.where(stops, self.bad[s], bad)
            if (choice == before).all():
                break
        return choice


def _first_best(gains: Floats) -> Ints:
    """In each row the first that is as good as the best, whatever rounding says."""
    best = gains.max(axis=1, keepdims=True)
    first: Ints = (gains >= best - 1e-9 * np.abs(best)).argmax(axis=1)
    return first
