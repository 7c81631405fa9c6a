"""The record of an evaluation: every figure that is shown, and no other.

One JSON file with a format number. Shares and accuracies lie in 0…1, times are milliseconds. Nothing in it names a
track.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from edge_reclass.host import write_whole

FORMAT: Final = 1
KIND: Final = "edge-reclass-evaluation"
UNSURE: Final = "unsure"
"""The last column of a confusion matrix."""

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]


class Plain(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything in the record."""


class Figure(Plain, frozen=True, kw_only=True):
    """A figure over ``of`` tracks with its 95 % interval.

    ``interval``: ``wilson`` is Wilson's for a proportion, which takes tracks for independent. ``bootstrap`` is between
    the percentiles 2.5 and 97.5 of a bootstrap that draws groups.
    """

    value: float
    low: float
    high: float
    of: Count
    interval: Literal["wilson", "bootstrap"]


class GenreTracks(Plain, frozen=True, kw_only=True):
    """A genre, and how many tracks of the data have it."""

    genre: str
    tracks: Count


class DataFacts(Plain, frozen=True, kw_only=True):
    """What was evaluated on. ``sha256``: of the sounds and their labels. ``left_out``: tracks that were not heard."""

    name: str
    sha256: str
    tracks: Count
    groups: Count
    left_out: Count
    genres: list[GenreTracks]


class GenreFigures(Plain, frozen=True, kw_only=True):
    """One genre of the bundle that the data have. Every track gets a genre here, ``unsure`` or not.

    ``found``: tracks of the genre that are said to be of it; ``said``: tracks that are said to be of it. ``precision``
    is None where nothing is said to be of the genre.
    """

    genre: str
    tracks: Count
    groups: Count
    found: Count
    said: Count
    precision: Figure | None
    recall: Figure
    f1: Figure


class Confusion(Plain, frozen=True, kw_only=True):
    """Verdicts as they are given. ``counts``: a row for each of ``labels``, a column for each of ``said``.

    ``said`` are the bundle's genres, then ``unsure``.
    """

    labels: list[str]
    said: list[str]
    counts: list[list[Count]]


class ReliabilityBin(Plain, frozen=True, kw_only=True):
    """Tracks whose confidence is in (``low``, ``high``]; the first bin has 0 too. None where there are no tracks."""

    low: Share
    high: Share
    tracks: Count
    confidence: Share | None
    accuracy: Figure | None


class Calibration(Plain, frozen=True, kw_only=True):
    """Whether scores are what they seem to be; every track gets a genre.

    ``ece``: expected calibration error over ``bins`` of equal width. ``brier``: mean squared distance of the scores
    from the label, summed over the genres (0 to 2).
    """

    ece: Share
    brier: Annotated[float, Meta(ge=0)]
    bins: list[ReliabilityBin]


class RiskPoint(Plain, frozen=True, kw_only=True):
    """If tracks below ``confidence`` are unsure: the share of sure tracks, and the share of those that is wrong.

    ``risk`` is None where no track is sure.
    """

    confidence: float
    coverage: Share
    risk: Share | None


class RiskCoverage(Plain, frozen=True, kw_only=True):
    """The points from the surest track to all; tracks outside of what the heads know come last, with confidence 0.

    ``aurc``: area under the curve, the mean risk over all coverages. ``chosen``: at the bundle's ``min_confidence``;
    None where it has none.
    """

    points: list[RiskPoint]
    aurc: Share
    chosen: RiskPoint | None


class ExitStep(Plain, frozen=True, kw_only=True):
    """A step of the policy: tracks that come to it and that stop there, and what those are worth.

    ``windows``: after so many of the stage's windows; None: all. ``accept``: the threshold; None at the last step, and
    where each fold has its own. ``accuracy``: of those that stop, unsure or not; None where none does.
    ``milliseconds``: median of tracks that stop there, from decoding to the verdict, measured on the CPU with FP32
    graphs; None where it was not.
    """

    stage: str
    windows: int | None
    accept: float | None
    reached: Count
    stopped: Count
    unsure: Count
    accuracy: Figure | None
    milliseconds: float | None = None


class Slice(Plain, frozen=True, kw_only=True):
    """Tracks that have something in common; ``accuracy`` as every track gets a genre."""

    value: str
    tracks: Count
    accuracy: Figure


class Breakdown(Plain, frozen=True, kw_only=True):
    """Accuracy by ``name``, such as length; slices in their natural order.

    ``unknown``: of how many tracks it is not known.
    """

    name: str
    slices: list[Slice]
    unknown: Count


class Judgement(Plain, frozen=True, kw_only=True):
    """One bundle under one policy, on the tracks whose genre it knows.

    ``judged``: ``as it is``, or ``cross-validated``: new heads of the same recipe, fitted in ``folds``. ``how`` says in
    sentences what was done. ``known_tracks``: tracks of the data that its heads were fitted on, as far as it is known.
    ``accuracy``, ``balanced``, ``macro_f1`` and ``top3``: every track gets a genre. ``unsure``: tracks without a genre
    at the bundle's ``min_confidence``; ``accuracy_sure``: of the others, None where there are none.
    ``not_in_bundle``: genres of the data that the bundle does not know; their tracks count nowhere else.
    """

    name: str
    digest: str
    policy: str
    judged: Literal["as it is", "cross-validated"]
    how: list[str]
    folds: int | None
    known_tracks: Count
    tracks: Count
    groups: Count
    min_confidence: float | None
    not_in_bundle: list[GenreTracks]
    accuracy: Figure
    balanced: Figure
    macro_f1: Figure
    top3: Figure
    unsure: Count
    accuracy_sure: Figure | None
    genres: list[GenreFigures]
    confusion: Confusion
    calibration: Calibration
    risk_coverage: RiskCoverage
    funnel: list[ExitStep]
    breakdowns: list[Breakdown]


class Comparison(Plain, frozen=True, kw_only=True):
    """Bundle ``b`` against ``a`` on the same tracks, whose genres both know; every track gets a genre.

    ``difference``: accuracy of b less that of a, with a bootstrap that draws groups (paired: both on the same draw).
    ``p``: of McNemar's exact test that neither is better. ``same``: tracks of which both say the same genre.
    """

    a: str
    b: str
    tracks: Count
    genres: list[str]
    both_right: Count
    only_a: Count
    only_b: Count
    both_wrong: Count
    same: Count
    accuracy_a: Figure
    accuracy_b: Figure
    difference: Figure
    p: Share


class Agreement(Plain, frozen=True, kw_only=True):
    """A bundle's verdicts on a device against those of the CPU at FP32, by the real cascade on the same tracks.

    ``precisions``: by stage with a graph. ``same``: verdicts of the same status and genre. ``max_difference``: largest
    of any genre's score. Where this machine cannot run it, ``why_not`` says why and the figures are None.
    """

    bundle: str
    device: str
    precisions: dict[str, str]
    same: Figure | None
    max_difference: float | None
    why_not: str | None = None


class Measured(Plain, frozen=True, kw_only=True):
    """What other features, or other heads on them, find on the same folds.

    ``milliseconds``: CPU time of a track, for its features. ``dim``: how many features. Figures are None where it could
    not run, and ``note`` says why.
    """

    accuracy: Figure | None = None
    balanced: Figure | None = None
    macro_f1: Figure | None = None
    milliseconds: float | None = None
    dim: int | None = None
    note: str


class Baseline(Measured, frozen=True, kw_only=True):
    """Another approach, on the tracks whose genre all bundles know.

    ``version``: of the libraries that it rests on. ``milliseconds``: mean, from the decoded excerpt. ``importance``: by
    group of features, the accuracy that is lost where they are those of other tracks.
    """

    name: str
    version: str
    importance: dict[str, float] | None = None


class Encoder(Measured, frozen=True, kw_only=True):
    """A linear probe on the embeddings of a stage of ``bundle``, on all tracks.

    ``milliseconds``: median, on one thread, without decoding. ``megabytes``: of the encoder's FP32 graph.
    """

    bundle: str
    stage: str
    megabytes: float | None


class Record(Plain, frozen=True, kw_only=True):
    """The record. ``program``: name and version. ``seed``: of folds and bootstraps. ``draws``: of each bootstrap."""

    program: str
    data: DataFacts
    seed: int
    draws: int
    bundles: list[Judgement]
    comparisons: list[Comparison] = []
    agreements: list[Agreement] = []
    baselines: list[Baseline] = []
    encoders: list[Encoder] = []
    warnings: list[str] = []
    kind: Literal["edge-reclass-evaluation"] = KIND
    format: Literal[1] = FORMAT


def save(record: Record, path: Path) -> None:
    """Write the record as JSON; ``path`` appears complete or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    # Not msgspec: it refuses names with stray bytes, which JSON can hold as escapes.
    text = json.dumps(msgspec.to_builtins(record), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode(errors="backslashreplace") + b"\n")
