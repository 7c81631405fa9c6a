"""The new bundle against its base, on the tracks whose genre both know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_reclass import Bundle
from edge_reclass.cascade import genre_map
from edge_reclass_export.parity import run_graph
from edge_reclass_learn.fit.judging import Said
from edge_reclass_learn.fit.policies import Answers
from edge_reclass_learn.hearing.examples import Example, rows
from edge_reclass_learn.hearing.listening import Listening

SURE: Final = 0.05
"""McNemar's p below which a difference is taken for no chance."""


@dataclass(frozen=True)
class Gain:
    """How many of ``tracks`` the base and the new bundle find, and in how many only one of them is right.

    p: of McNemar's exact test that neither is better
    """

    tracks: int
    base: int
    new: int
    only_base: int
    only_new: int
    p: float

    @property
    def points(self) -> float:
        """Accuracy that was gained, in percentage points."""
        return 100.0 * (self.new - self.base) / self.tracks


def gain(base_right: Sequence[bool], new_right: Sequence[bool]) -> Gain:
    """Compare what two bundles found of the same tracks, at least one."""
    from scipy.stats import binomtest

    base, new = np.asarray(base_right, np.bool_), np.asarray(new_right, np.bool_)
    only_base, only_new = int((base & ~new).sum()), int((new & ~base).sum())
    differ = only_base + only_new
    p = float(binomtest(only_new, differ, 0.5).pvalue) if differ else 1.0
    return Gain(len(base), int(base.sum()), int(new.sum()), only_base, only_new, p)


def base_answers(bundle: Bundle, heard: Listening, examples: Sequence[Example]) -> Answers:
    """What the heads and range tests of ``bundle`` say of the examples."""
    logits, distances, limits, temperatures, maps = {}, {}, {}, {}, {}
    for stage in heard.inputs:
        head = bundle.manifest.stage(stage).head
        content = bundle.path(head.file).read_bytes()
        logits[stage] = {
            given: run_graph(content, rows(examples, given))[0].astype(float) for given in heard.givens[stage]
        }
        temperatures[stage] = head.temperature
        if (own := genre_map(head, bundle.manifest.genres)) is not None:
            maps[stage] = own
        if head.range is not None:
            given = tuple((name, heard.usual[name]) for name in head.range.inputs)
            test = bundle.path(head.range.file).read_bytes()
            distances[stage] = run_graph(test, rows(examples, given))[0][:, 0].astype(float)
            limits[stage] = head.range.limit
    said = Said(logits, distances)
    return Answers(heard, examples, said, temperatures, limits, bundle.manifest.min_confidence, maps)
