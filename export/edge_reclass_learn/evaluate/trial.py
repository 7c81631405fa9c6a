"""The tracks that baselines and encoders are judged on: the same ones, in the same folds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from edge_reclass_learn.data.folds import deal
from edge_reclass_learn.evaluate.intervals import DRAWS, Numbers, Worth, worth
from edge_reclass_learn.hearing.examples import Example, numbers


@dataclass(frozen=True)
class Trial:
    """Examples and their genres, in so many folds that share no group; ``seed`` of all that draws.

    Examples have the paths of their tracks as names. ``draws``: of each bootstrap. ``before``: the fold of each
    example, intp[n], where it is dealt already.
    """

    examples: Sequence[Example]
    genres: Sequence[str]
    folds: int
    seed: int
    draws: int = DRAWS
    before: Numbers | None = None

    @cached_property
    def labels(self) -> Numbers:
        """The number of each example's genre."""
        return numbers(self.examples, self.genres)

    @cached_property
    def groups(self) -> list[str]:
        """The group of each example."""
        return [example.group for example in self.examples]

    @cached_property
    def dealt(self) -> Numbers:
        """The fold of each example."""
        return self.before if self.before is not None else deal(self.labels, self.groups, self.folds, self.seed)

    def of(self, genres: Collection[str]) -> Trial:
        """The same without the examples of other genres; each stays in its fold."""
        rows = [row for row, example in enumerate(self.examples) if example.genre in genres]
        return replace(
            self, examples=[self.examples[row] for row in rows], genres=sorted(genres), before=self.dealt[rows]
        )

    def worth(self, said: Numbers) -> Worth:
        """What answers are worth: a genre's number for each example, ``len(genres)`` where none was given."""
        return worth(self.labels, said, self.groups, len(self.genres), seed=self.seed, draws=self.draws)
