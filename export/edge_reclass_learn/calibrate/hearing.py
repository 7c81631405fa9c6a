"""What every stage says of the drawn tracks on one device, and what that takes; it is kept, track by track."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edge_reclass import Bundle, Cascade, __version__
from edge_reclass.bundle import graph_digests
from edge_reclass.cascade import Policy
from edge_reclass.errors import TrackError, UsageError
from edge_reclass.run import printable
from edge_reclass_learn.answers import Answers, Heard, TrackAnswers
from edge_reclass_learn.calibrate.tracks import Drawn
from edge_reclass_learn.data.groups import group, near_duplicates
from edge_reclass_learn.hearing.cache import Cache
from edge_reclass_learn.hearing.listening import listening
from edge_reclass_learn.hearing.memory import fitted_sounds, recall, short
from edge_reclass_learn.hearing.recording import stage_facts, stage_heard
from edge_reclass_learn.progress import Say


class Kept(msgspec.Struct, frozen=True):
    """What is kept of one track: its answers, what decoding took, and the last embedding of each stage, float32."""

    decode: float
    stages: dict[str, Heard]
    embeddings: dict[str, bytes]


@dataclass(frozen=True)
class Counted:
    """The tracks that can be counted: each is heard, none is the same recording as another one.

    tracks: of one that is kept for several, ``artist`` is of all of their artists
    answers: the record of them, in the order of ``tracks``
    known: numbers of the tracks that the heads seem to have been fitted on
    left_out: tracks that could not be heard, and why
    same: tracks left out because they seem to be the same recording as another one
    digest: of the sounds and their genres
    ran: device and precision of each stage with a graph
    """

    tracks: Sequence[Drawn]
    answers: Answers
    known: Sequence[int]
    left_out: Sequence[tuple[Drawn, str]]
    same: int
    digest: str
    ran: dict[str, str]


def hear(
    bundle: Bundle,
    tracks: Sequence[Drawn],
    asked: Policy,
    cache: Path,
    device: str,
    engines: Path | None,
    say: Say,
) -> Counted:
    """Hear ``tracks`` at every step of ``asked``, in one lane on one thread, as ``bench order`` measures.

    Raises:
        UsageError: nothing can be heard, or the cache cannot be used.
        UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    heard: list[tuple[Drawn, Kept]] = []
    left_out: list[tuple[Drawn, str]] = []
    with Cascade.open(bundle, device, asked, threads=1, engines=engines) as cascade:
        ran = cascade.plan.ran(cascade.device)
        facts = [stage_facts(cascade, name) for name in asked.stages]
        ears = _Ears(cascade)
        with Cache(cache, _how(bundle, asked, ran), Kept) as kept:
            for number, one in enumerate(tracks, start=1):
                say(f"hearing {number} of {len(tracks)}: {printable(one.track.path.name)}")
                try:
                    if (found := kept.get(one.sound)) is None:
                        found = ears.hear(one.track.path)
                        kept.put(one.sound, found)
                except (TrackError, OSError) as error:
                    left_out.append((one, str(getattr(error, "status", "unreadable"))))
                    continue
                if all(stage.said[-1].probabilities is None for stage in found.stages.values()):
                    left_out.append((one, "silent"))
                    continue
                heard.append((one, found))
        device = cascade.device
    if not heard:
        raise UsageError(f"none of the {len(tracks)} tracks can be heard; take others")
    same, known = _apart(bundle, asked, heard)
    single = [numbers[0] for numbers in same]
    answers = Answers(
        digest=bundle.digest,
        genres=bundle.manifest.genres,
        min_confidence=bundle.manifest.min_confidence,
        stages=facts,
        tracks=[
            TrackAnswers(name=str(one.track.path), group=str(i), decode=found.decode, stages=found.stages)
            for i, (one, found) in ((i, heard[i]) for i in single)
        ],
        heard_with=device,
    )
    lines = sorted(f"{heard[i][0].sound.hex()} {heard[i][0].track.genre}" for i in single)
    return Counted(
        [replace(heard[some[0]][0], artist=frozenset().union(*(heard[i][0].artist for i in some))) for some in same],
        answers,
        [number for number, some in enumerate(same) if not known.isdisjoint(some)],
        left_out,
        len(heard) - len(single),
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        ran,
    )


def _how(bundle: Bundle, asked: Policy, ran: dict[str, str]) -> str:
    """A digest of all that the answers depend on: stages and their files, steps, device and program."""
    manifest = bundle.manifest
    said: list[object] = ["answers", __version__, msgspec.to_builtins(manifest.excerpt), manifest.genres]
    for name in asked.stages:
        stage = manifest.stage(name)
        files = [stage.head.file, *([] if stage.head.range is None else [stage.head.range.file])]
        said += [msgspec.to_builtins(stage), [manifest.files[file].sha256 for file in files], asked.windows(name)]
        said += [] if asked.hears_all(name) else ["in part"]
    said += [sorted(ran.items()), sorted(graph_digests(manifest, ran).items())]
    return hashlib.sha256(repr(said).encode()).hexdigest()


class _Ears:
    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade
        # What another program takes from a processor is no cost of ours; what a GPU takes is no processor's time.
        self._clock = time.process_time if cascade.device == "cpu" else time.perf_counter
        self._warm = False

    def hear(self, path: Path) -> Kept:
        """Raises ``TrackError`` where it cannot be decoded."""
        if not self._warm:
            self._cascade.step_answers(path)  # the first time is dearer
            self._warm = True
        decoding, said = self._cascade.step_answers(path, self._clock)
        names = list(dict.fromkeys(answer.stage for answer in said))
        last = {answer.stage: answer.embedding for answer in said if answer.embedding is not None}
        return Kept(
            decoding,
            {name: stage_heard([answer for answer in said if answer.stage == name]) for name in names},
            {name: vector.astype("<f4").tobytes() for name, vector in last.items()},
        )


def _apart(bundle: Bundle, asked: Policy, heard: Sequence[tuple[Drawn, Kept]]) -> tuple[list[list[int]], set[int]]:
    """Numbers of the tracks of each recording; and of those that the bundle seems to be fitted on."""
    listens = listening(bundle)
    remembered = recall(bundle, listens)
    stages = {name: counts[-1] for name, counts in listens.counts.items() if name in asked.stages}
    full = [i for i, (_, kept) in enumerate(heard) if set(kept.embeddings) == set(stages)]
    vectors = [
        np.stack(
            [np.frombuffer(heard[i][1].embeddings[name], "<f4") for i in full]
            + [example.embeddings[name, count] for example in remembered]
        )
        for name, count in stages.items()
        if full
    ]
    pairs = near_duplicates(vectors, len(remembered)) if vectors else []
    own = [(full[p.first], full[p.second]) for p in pairs if p.second < len(full)]
    known = {full[p.first] for p in pairs if p.first < len(full) <= p.second}
    fitted = fitted_sounds(bundle)
    known |= {i for i, (one, _) in enumerate(heard) if short(one.sound) in fitted}
    same: dict[str, list[int]] = {}
    for i, name in enumerate(group([[] for _ in heard], own)):
        same.setdefault(name, []).append(i)
    return list(same.values()), known
