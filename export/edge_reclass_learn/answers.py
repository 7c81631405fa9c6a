"""The record of what every stage says of every track after so many windows, and of what that took.

One JSON file with a format number. It holds no audio and no embedding: what a policy would have said, and what it would
have cost, can be replayed from it for any order of the stages, any of the recorded windows and any thresholds
(``ladders.py``). Times are milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_reclass.cascade import Answer
from edge_reclass.errors import UsageError
from edge_reclass.host import write_whole

FORMAT: Final = 1
KIND: Final = "edge-reclass-answers"
MAX_BYTES: Final = 1 << 30
"""Of a file that is read: 100 000 tracks of four stages have a third of it."""

Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Plain(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of everything in the record."""


class Said(Plain, frozen=True, kw_only=True):
    """What a stage says after ``windows`` of its windows: probabilities in the order of the genres.

    ``probabilities`` is None, and ``windows`` 0, where there is no sound in any window. ``outside``: what was heard is
    unlike anything that the head was fitted on. ``abstains``: its head took it for a genre that the bundle does not
    have. ``cost``: what came to it since the answer before, resampling apart.
    """

    windows: Annotated[int, Meta(ge=0)]
    probabilities: list[Annotated[float, Meta(ge=0, le=1)]] | None
    cost: Milliseconds
    outside: bool = False
    abstains: bool = False


class Heard(Plain, frozen=True, kw_only=True):
    """What one stage heard of one track: ``said`` after some of its ``of`` windows, and at last after all of them.

    A track that has no more windows than a step asks for has no answer of that step: its last answer comes at once.
    ``seconds`` is the length of the excerpt, ``resample`` what it took to bring it to the stage's rate.
    """

    of: Count
    seconds: Annotated[float, Meta(gt=0, le=1e6)]
    said: Annotated[list[Said], Meta(min_length=1)]
    resample: Milliseconds = 0.0


class TrackAnswers(Plain, frozen=True, kw_only=True):
    """One track. ``group``: tracks of one group are never on both sides of a judgement. ``decode``: of all excerpts.

    ``label`` is a genre as the record spells it; None where it is not known.
    """

    name: Text
    group: Text
    decode: Milliseconds
    stages: dict[str, Heard]
    label: str | None = None


class StageFacts(Plain, frozen=True, kw_only=True):
    """What holds for a stage whatever the track.

    ``windows``: after how many it was asked before all of them, ascending. ``needs``: other stages whose embeddings its
    head takes, which have to run before it. Stages of one ``signal`` (excerpt and rate) resample once. ``whole``: the
    encoder takes the excerpt at once, so that its work grows with the excerpt and not with windows. ``says``: the
    genres that its head knows, where its genres are its own; None: all.
    """

    name: Text
    signal: str
    windows: list[Count] = []
    needs: list[str] = []
    whole: bool = False
    says: Annotated[list[Text], Meta(min_length=1)] | None = None


class Answers(Plain, frozen=True, kw_only=True, omit_defaults=False):
    """The record. ``digest`` is of the bundle; ``tracks_sha256`` is of the audio; ``heard_with`` says on what.

    ``min_confidence`` is the bundle's: below it a verdict is unsure.
    """

    digest: str
    genres: Annotated[list[Text], Meta(min_length=2)]
    stages: Annotated[list[StageFacts], Meta(min_length=1)]
    tracks: Annotated[list[TrackAnswers], Meta(min_length=1)]
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    tracks_sha256: str = ""
    heard_with: str = ""
    kind: Literal["edge-reclass-answers"] = KIND
    format: Literal[1] = FORMAT

    def facts(self, stage: str) -> StageFacts:
        """What holds for ``stage``; KeyError if there is none of that name."""
        for facts in self.stages:
            if facts.name == stage:
                return facts
        raise KeyError(stage)

    def answer(self, stage: str, said: Said) -> Answer | None:
        """What a stage that ``said`` this gives to a vote; None where it heard nothing."""
        if said.probabilities is None:
            return None
        names = self.facts(stage).says
        says = None if names is None else frozenset(map(self.genres.index, names))
        return Answer(stage, tuple(said.probabilities), said.outside, says, said.abstains)

    @property
    def labels(self) -> list[int]:
        """The number of each track's genre, -1 where no label is known."""
        number = {genre: i for i, genre in enumerate(self.genres)}
        return [-1 if track.label is None else number[track.label] for track in self.tracks]


def faults(answers: Answers) -> Iterator[str]:
    """What does not fit together in a record of the right types: one sentence each."""
    names = [facts.name for facts in answers.stages]
    for what, texts in (
        ("stages", names),
        ("genres", answers.genres),
        ("tracks", [track.name for track in answers.tracks]),
    ):
        yield from (f"{what}: {text!r} stands there {n} times" for text, n in Counter(texts).items() if n > 1)
    for facts in answers.stages:
        if facts.windows != sorted(set(facts.windows)):
            yield f"stages.{facts.name}.windows: expected ascending counts, got {facts.windows}"
        if unknown := set(facts.needs) - set(names) | ({facts.name} & set(facts.needs)):
            yield f"stages.{facts.name}.needs: expected other stages of {', '.join(names)}, got {sorted(unknown)}"
        if unknown := set(facts.says or ()) - set(answers.genres):
            yield f"stages.{facts.name}.says: expected genres of {', '.join(answers.genres)}, got {sorted(unknown)}"
    if set(_runnable(answers.stages)) != set(names):
        yield "stages: their needs go in a circle"
    for track in answers.tracks:
        if set(track.stages) != set(names):
            yield f"tracks.{track.name}: expected the stages {', '.join(names)}, got {', '.join(track.stages)}"
            continue
        if track.label is not None and track.label not in answers.genres:
            yield f"tracks.{track.name}: expected a label of {', '.join(answers.genres)}, got {track.label!r}"
        if all(track.stages[name].said[-1].probabilities is None for name in names):
            yield f"tracks.{track.name}: no stage heard anything; leave it out"
        for facts in answers.stages:
            wrong = _said_faults(track.stages[facts.name], facts, len(answers.genres))
            yield from (f"tracks.{track.name}.{facts.name}: {fault}" for fault in wrong)


def _runnable(stages: Sequence[StageFacts]) -> list[str]:
    """Names of the stages in an order in which what they need has run before; those in a circle are left out."""
    done: list[str] = []
    while ready := [s.name for s in stages if s.name not in done and set(s.needs) <= set(done)]:
        done += ready
    return done


def _said_faults(heard: Heard, facts: StageFacts, genres: int) -> Iterator[str]:
    *early, last = heard.said
    counts = [said.windows for said in early]
    if not set(counts) <= set(facts.windows) or counts != sorted(set(counts)):
        yield f"expected answers after some of {facts.windows} windows, ascending, got {counts}"
    if not max([0, *counts]) <= last.windows <= heard.of:
        yield f"expected {max([0, *counts])} to {heard.of} windows heard at last, got {last.windows}"
    for said in heard.said:
        if said.probabilities is None:
            if said is not last or said.windows:
                yield f"expected probabilities after {said.windows} windows, got none"
        elif not said.windows:
            yield "probabilities after 0 windows"
        elif len(said.probabilities) != genres or not math.isclose(math.fsum(said.probabilities), 1.0, abs_tol=1e-3):
            yield (
                f"expected {genres} probabilities with a sum of 1, got {len(said.probabilities)} with a sum of "
                f"{math.fsum(said.probabilities):g}"
            )


def checked(answers: Answers, what: str = "answers") -> Answers:
    """``answers``, whose parts fit together.

    Raises:
        UsageError: they do not; the message begins with ``what`` and names the first few faults.
    """
    if wrong := list(faults(answers)):
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(f"{what}: " + "; ".join(wrong[:5]) + more)
    return answers


def narrowed(answers: Answers, windows: Mapping[str, Sequence[int]]) -> Answers:
    """As if each stage had been asked after ``windows`` alone, which are among those that it was asked after."""

    def without(heard: Heard, counts: Sequence[int]) -> Heard:
        said, waiting = [], 0.0
        for one in heard.said:
            if one is heard.said[-1] or one.windows in counts:
                said.append(msgspec.structs.replace(one, cost=waiting + one.cost))
                waiting = 0.0
            else:
                waiting += one.cost
        return msgspec.structs.replace(heard, said=said)

    tracks = [
        msgspec.structs.replace(t, stages={name: without(heard, windows[name]) for name, heard in t.stages.items()})
        for t in answers.tracks
    ]
    stages = [msgspec.structs.replace(facts, windows=list(windows[facts.name])) for facts in answers.stages]
    return msgspec.structs.replace(answers, stages=stages, tracks=tracks)


def save(answers: Answers, path: Path) -> None:
    """Write the record; ``path`` appears complete or not at all.

    Raises:
        UsageError: it cannot be written, or its parts do not fit together.
    """
    write_whole(path, msgspec.json.encode(checked(answers, f"{path} would not be valid")) + b"\n")


def load(path: Path) -> Answers:
    """Read a record.

    Raises:
        UsageError: the file cannot be read, is no such record or of another format, or its parts do not fit together.
            The message names file and key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UsageError(f"{path}: expected at most {MAX_BYTES} bytes, got more")
        plain = msgspec.json.decode(content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no valid JSON ({error}); remove it, and it is made anew") from error
    if not isinstance(plain, dict) or plain.get("kind") != KIND:
        raise UsageError(f"{path}: expected a record of answers (kind: {KIND!r}), got another JSON file")
    if plain.get("format") != FORMAT:
        raise UsageError(
            f"{path}: format: expected {FORMAT}, got {plain.get('format')!r}; remove it, and it is made anew"
        )
    try:
        answers = msgspec.convert(plain, Answers)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UsageError(f"{path}: {error}") from error
    return checked(answers, str(path))


@dataclass(frozen=True)
class Costs:
    """What each part of the work on each track takes: float64[tracks] everywhere, in one unit.

    decode: of all excerpts, whatever is asked.
    resample: by signal; whichever stage of that signal comes first takes it.
    until: by stage, and by the windows heard (None: all), from nothing to that answer. Where a track has no answer
        after so many windows, the number means nothing.
    """

    decode: NDArray[np.float64]
    resample: Mapping[str, NDArray[np.float64]]
    until: Mapping[str, Mapping[int | None, NDArray[np.float64]]]

    @classmethod
    def measured(cls, answers: Answers, some: NDArray[np.bool_] | None = None) -> Costs:
        """Costs as they were measured while the answers were recorded.

        Decoding and resampling depend on the file and are each track's own. How long an encoder takes does not: its
        cost is the median over all tracks of what one window took (a second, where it takes the excerpt at once), times
        the windows that this track had newly heard, so that what else the machine did does not count.

        Args:
            some: bool[tracks], those of which the medians are; None: all
        """
        tracks = answers.tracks
        until: dict[str, dict[int | None, NDArray[np.float64]]] = {}
        resample: dict[str, NDArray[np.float64]] = {}
        for facts in answers.stages:
            heards = [track.stages[facts.name] for track in tracks]
            once = np.array([heard.resample for heard in heards])
            resample[facts.signal] = np.maximum(resample.get(facts.signal, 0.0), once)
            until[facts.name] = _until(heards, facts, some)
        return cls(np.array([track.decode for track in tracks]), resample, until)


def _until(
    heards: Sequence[Heard], facts: StageFacts, of: NDArray[np.bool_] | None
) -> dict[int | None, NDArray[np.float64]]:
    """Per windows heard, None for all: the cost for each track from nothing."""
    steps: tuple[int | None, ...] = (*facts.windows, None)
    # Per step and track: how much more was heard, and what it took. 0 where the track has no answer of this step.
    units, took = np.zeros((2, len(steps), len(heards)))
    for i, heard in enumerate(heards):
        before = 0
        for said in heard.said:
            step = len(steps) - 1 if said is heard.said[-1] else facts.windows.index(said.windows)
            units[step, i] = heard.seconds if facts.whole else said.windows - before
            took[step, i], before = said.cost, said.windows
    total, until = np.zeros(len(heards)), {}
    for step, count in enumerate(steps):
        some = units[step] > 0
        measured = some if of is None else some & of
        each = float(np.median(took[step, measured] / units[step, measured])) if measured.any() else 0.0
        # Where nothing new was heard (windows without sound), looking at it is all that it took.
        total = total + np.where(some, units[step] * each, took[step])
        until[count] = total
    return until
