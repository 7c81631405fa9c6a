"""The policy of least expected cost: which order of stages, which windows and which thresholds, and how good it is.

Candidates are all orders of all sets of stages in which each head has what it takes; for each, ``ladders.py`` searches,
roughly first, and closely for the few that are then best. It finds what trying everything finds on small cases (the
tests say so), and need not on large ones.

Judging: tracks are dealt to folds by their groups. What is chosen on all folds but one is judged on the one left out.
Thresholds that just reach what is wanted on the tracks they were chosen on miss it on others. So they are chosen for
more than is wanted by one of ``margins``: for each fold the smallest that was enough on the tracks of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Policy
from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Answers, Costs
from edge_reclass_learn.ladders import Best, Ladder, Sayings, ladder, orders
from edge_reclass_learn.replaying import Replay, everything, replay

GRID = (0.99, 0.97, 0.95, 0.925, 0.9, 0.875, 0.85, 0.825, 0.8, 0.775, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.3)
"""Thresholds that are tried, beside never."""
MARGINS = (0.0, 0.005, 0.01, 0.015, 0.02)
PRICES = np.geomspace(0.1, 1000.0, 14)
"""Of a track that is answered wrongly, in mean costs of hearing everything."""
_MOST_ORDERS = 400
"""All of five stages are 325."""
_COARSE, _PROMISING = 4, 3
"""Every fourth price for a first look at all orders; so many of the best are looked at closely, for each budget."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Goal:
    """What is wanted: a share of tracks with the full answer's verdict, or of labelled ones that get their label."""

    share: float
    of: str = "agreement"

    def __post_init__(self) -> None:
        if self.of not in {"agreement", "accuracy"} or not 0 < self.share <= 1:
            raise UsageError(f"expected an agreement or accuracy above 0, at most 1, got {self.of} {self.share}")


@dataclass(frozen=True)
class Spread:
    """The mean over repeats, and their standard deviation."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of ``values``, at least one."""
        return cls(float(np.mean(values)), float(np.std(values)))


@dataclass(frozen=True)
class Judged:
    """Mean cost of a track, share with the full answer's verdict, share of the labelled that is right.

    ``accuracy`` is None where nothing is labelled. An unsure verdict is never right, and agrees with an unsure one.
    """

    cost: Spread
    agreement: Spread
    accuracy: Spread | None


@dataclass(frozen=True)
class Proposal:
    """The policy of least expected cost.

    policy: chosen on all tracks, for ``margin`` more than is wanted. judged: cross-validated, so not on these tracks.
    on_all: on the tracks it was chosen on. full: of the full answer, on all tracks.
    chosen: how often each order of stages was chosen among all folds and repeats.
    """

    policy: Policy
    margin: float
    judged: Judged
    on_all: Judged
    full: Judged
    chosen: Mapping[tuple[str, ...], int]


def judged(answers: Answers, full: Replay, *replays: Replay) -> Judged:
    """What ``replays`` (repeats, or one) cost, how often they agree with ``full``, and how often they are right."""
    labels = np.array(answers.labels)
    known = labels >= 0
    right = [float(np.mean(r.genre[known] == labels[known])) for r in replays] if known.any() else []
    return Judged(
        Spread.of([float(np.mean(r.cost)) for r in replays]),
        Spread.of([float(np.mean(r.genre == full.genre)) for r in replays]),
        Spread.of(right) if right else None,
    )


def propose(
    answers: Answers,
    full: Policy,
    goal: Goal,
    *,
    costs: Costs | None = None,
    weights: Sequence[Mapping[str, float]] = (),
    name: str = "proposed",
    folds: int = 5,
    repeats: int = 4,
    grid: Sequence[float] = GRID,
    margins: Sequence[float] = MARGINS,
    seed: int = 20_070_518,
) -> Proposal:
    """The policy of least expected cost that is as good as ``goal`` wants, with its cross-validated figures.

    Args:
        full: its last answer, after all windows of all its stages, is what candidates have to agree with; they vote as
            it does.
        costs: of each part; as they were measured, where None.
        weights: other weightings of the stages that candidates may vote with, beside that of ``full``. At each step
            the weights of the stages that have answered count; where they have none, the last one decides alone.
        folds: into how many parts the groups are dealt; repeats: how often they are dealt anew.

    Raises:
        UsageError: too few groups for the folds; nothing labelled, where an accuracy is wanted; what is wanted is not
            reached even on the tracks that are chosen on, and the message says what is.
    """
    costs = Costs.measured(answers) if costs is None else costs
    reference = replay(answers, everything(full), costs)
    labels = np.array(answers.labels)
    known = np.ones(len(labels), np.bool_) if goal.of == "agreement" else labels >= 0
    if not known.any():
        raise UsageError("an accuracy is wanted, but no track has a label that the bundle knows")
    truth = reference.genre if goal.of == "agreement" else labels
    dealt = deal([track.group for track in answers.tracks], folds, repeats, seed)
    train = np.array([part != fold for part in dealt for fold in range(folds)] + [np.ones(len(labels), np.bool_)])
    targets = np.minimum(1.0, goal.share + np.array(margins))
    # 1e-9: what is wanted may be reached exactly.
    budgets = np.floor((1 - targets)[None, :] * (train & known).sum(axis=1)[:, None] + 1e-9)
    prices = PRICES * max(float(np.mean(reference.cost)), 1e-12)

    found = _Found.nothing(len(train), len(targets))
    said = Sayings(answers, full.vote)
    all_ladders = [
        ladder(answers, said, costs, order, weighting, truth, known, grid)
        for order in orders(answers, _MOST_ORDERS)
        for weighting in (full.steps[-1].weights, *weights)
    ]
    rough = np.empty((len(all_ladders), *budgets.shape))
    for i, one in enumerate(all_ladders):
        best = one.search(train, budgets, prices[::_COARSE], rough=True)
        found.take(one, range(len(train)), best)
        rough[i] = best.cost
    # Each row on its own: what is promising elsewhere tells of tracks that it must not know.
    promising = np.any(rough.argsort(axis=0).argsort(axis=0) < _PROMISING, axis=2)
    for i, one in enumerate(all_ladders):
        if len(rows := np.flatnonzero(promising[i])):
            found.take(one, rows, one.search(train[rows], budgets[rows], prices))
    found.polish(train, budgets)
    whole = len(train) - 1
    if found.cost[whole, 0] == np.inf:
        most = 1 - found.least[whole] / (train & known)[whole].sum()
        raise UsageError(
            f"{goal.of} {goal.share:g} is not reached by any order, windows and thresholds: the most is {most:.4g}, on "
            f"the very tracks that they are chosen on; want less, or ask after more windows"
        )
    genres, spent = _left_out(found, dealt, folds)
    good = (genres == truth) & known  # [repeats, targets, tracks]
    margin = _enough(good.sum(axis=(0, 2)) / (known.sum() * repeats), goal.share)
    replays = []
    for r, part in enumerate(dealt):
        genre, cost = np.empty(len(labels), np.int64), np.empty(len(labels))
        for fold in range(folds):
            inside, others = part == fold, (part != fold) & known
            here = _enough(good[r][:, others].mean(axis=1), goal.share) if others.any() else 0
            genre[inside], cost[inside] = genres[r, here, inside], spent[r, here, inside]
        replays.append(Replay(genre, cost, ()))
    best_one, choice = found.best(whole, margin)
    policy = best_one.policy(name, choice)
    chosen = [found.best(row, margin)[0].order for row in range(whole)]
    return Proposal(
        policy,
        margins[margin],
        judged(answers, reference, *replays),
        judged(answers, reference, replay(answers, policy, costs)),
        judged(answers, reference, reference),
        {order: chosen.count(order) for order in sorted(set(chosen), key=chosen.count, reverse=True)},
    )


def _enough(shares: Floats, wanted: float) -> int:
    """The first of ``shares`` that is as good as wanted; the best where none is."""
    enough = np.flatnonzero(shares >= wanted - 1e-9)
    return int(enough[0]) if len(enough) else int(np.argmax(shares))


def deal(groups: Sequence[str], folds: int, repeats: int, seed: int) -> list[Ints]:
    """For each repeat the fold of every track; groups stay together, and folds are of about one size.

    Raises:
        UsageError: there are fewer groups than folds.
    """
    names = sorted(set(groups))
    if folds < 2 or repeats < 1:
        raise UsageError(f"expected at least 2 folds and 1 repeat, got {folds} and {repeats}")
    if len(names) < folds:
        raise UsageError(
            f"{len(groups)} tracks in {len(names)} groups are too few for {folds} folds: a group may not be on both "
            f"sides, so at least {folds} groups are needed; take more tracks"
        )
    random = np.random.default_rng(seed)
    group = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(group)
    dealt = []
    for _ in range(repeats):
        fold_of, filled = np.zeros(len(names), np.int64), np.zeros(folds, np.int64)
        order = random.permutation(len(names))
        for number in order[np.argsort(-sizes[order], kind="stable")]:
            fold_of[number] = np.argmin(filled)
            filled[fold_of[number]] += sizes[number]
        dealt.append(fold_of[group])
    return dealt


@dataclass
class _Found:
    """The best of the ladders so far, for each row of tracks and each budget; and the least wrong of each row."""

    cost: Floats
    where: list[list[tuple[Ladder, Ints] | None]]
    least: Floats
    least_where: list[tuple[Ladder, Ints] | None]

    @classmethod
    def nothing(cls, rows: int, budgets: int) -> _Found:
        empty: list[list[tuple[Ladder, Ints] | None]] = [[None] * budgets for _ in range(rows)]
        return cls(np.full((rows, budgets), np.inf), empty, np.full(rows, np.inf), [None] * rows)

    def take(self, ladder: Ladder, rows: Iterable[int], best: Best) -> None:
        """Keep what is better than what is known of these rows; of equals what was found first."""
        for i, row in enumerate(rows):
            for budget in np.flatnonzero(best.cost[i] < self.cost[row] - 1e-9):
                self.cost[row, budget] = best.cost[i, budget]
                self.where[row][budget] = (ladder, best.choice[i, budget])
            if best.least[i] < self.least[row]:
                self.least[row] = best.least[i]
                self.least_where[row] = (ladder, best.least_choice[i])

    def polish(self, train: NDArray[np.bool_], budgets: Floats) -> None:
        """Improve what was found, all places of one order at once."""
        places: dict[int, list[tuple[int, int]]] = {}
        for row, budget in np.argwhere(self.cost < np.inf).tolist():
            places.setdefault(id(self.best(row, budget)[0]), []).append((row, budget))
        for here in places.values():
            rows, numbers = map(list, zip(*here, strict=True))
            ladder = self.best(*here[0])[0]
            choices = np.array([self.best(*place)[1] for place in here])
            costs, choices = ladder.polish(choices, train[rows], budgets[rows, numbers])
            self.cost[rows, numbers] = costs
            for (row, budget), choice in zip(here, choices, strict=True):
                self.where[row][budget] = (ladder, choice)

    def best(self, row: int, budget: int) -> tuple[Ladder, Ints]:
        """The cheapest within the budget, or what is least wrong where nothing is."""
        found = self.where[row][budget] or self.least_where[row]
        if found is None:
            raise AssertionError("every order has a policy that hears everything")
        return found


def _left_out(found: _Found, dealt: Sequence[Ints], folds: int) -> tuple[Ints, Floats]:
    """What was chosen on the other folds says of each track, and costs: [repeats, budgets, tracks]."""
    budgets, tracks = found.cost.shape[1], np.arange(len(dealt[0]))
    genre = np.empty((len(dealt), budgets, len(tracks)), np.int64)
    cost = np.empty(genre.shape)
    for r, part in enumerate(dealt):
        for fold in range(folds):
            inside = tracks[part == fold]
            for budget in range(budgets):
                ladder, choice = found.best(r * folds + fold, budget)
                where = ladder.where(choice[None])[0][inside]
                genre[r, budget, inside] = ladder.genre[where, inside]
                cost[r, budget, inside] = ladder.cost[where, inside]
    return genre, cost
