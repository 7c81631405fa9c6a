"""Tracks → embeddings, through the runtime's own cascade: what heads are fitted on is what a device hears."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass import Bundle, Cascade, __version__
from edge_reclass.audio import Decoder, ExcerptSpec, Limits, audio_hash, level
from edge_reclass.cascade import Policy, StageAnswer, Step, StepAnswer
from edge_reclass.errors import TrackError, UsageError
from edge_reclass.run import printable
from edge_reclass_learn.data.labelled import Labelled
from edge_reclass_learn.hearing.cache import Cache, HeardStage, HeardTrack
from edge_reclass_learn.hearing.copies import changed_copy, copy_key
from edge_reclass_learn.hearing.examples import Facts, Vector
from edge_reclass_learn.hearing.listening import Asked, Listening
from edge_reclass_learn.hearing.nonsense import FITTED, recordings
from edge_reclass_learn.progress import Say

_FACTS_SECONDS: Final = 10.0
"""Of the middle, whose level is measured."""
_COPIED_SECONDS: Final = 30.0
"""Of the middle, of which copies are made."""
_MAX_RATE: Final = 48_000
_SILENT: Final = HeardTrack({}, (0.0, 0, 0.0, 0.0))


@dataclass(frozen=True)
class Clip:
    """A labelled track and what the stages heard of it.

    sound: the same for the same sound in the same codec
    copies: what they heard of changed copies of the track
    audio: whether ``sound`` is of the audio; else it is of vectors that were kept, as no audio is there
    """

    track: Labelled
    sound: bytes
    embeddings: dict[Asked, Vector]
    windows: dict[str, int]
    facts: Facts | None
    copies: tuple[dict[Asked, Vector], ...] = ()
    audio: bool = True


@dataclass(frozen=True)
class LeftOut:
    """A track that could not be heard, and why."""

    track: Labelled
    why: str


def how(bundle: Bundle, heard: Listening) -> str:
    """A digest of all that embeddings depend on: encoders, excerpts, loudness, windows, and the program."""
    manifest = bundle.manifest
    said: list[object] = [__version__, msgspec.to_builtins(manifest.excerpt)]
    for name, counts in heard.counts.items():
        stage = manifest.stage(name)
        graphs = [manifest.files[file].sha256 for file in stage.encoder.graph_files.values()]
        said += [msgspec.to_builtins(stage.encoder), msgspec.to_builtins(stage.excerpt), stage.loudness, graphs, counts]
    return hashlib.sha256(repr(said).encode()).hexdigest()


def hear(
    bundle: Bundle,
    heard: Listening,
    tracks: Sequence[Labelled],
    cache: Path,
    threads: int | None,
    say: Say,
    copies: int = 0,
) -> tuple[list[Clip], list[LeftOut]]:
    """Hear every track that is not in ``cache`` yet, and keep what was heard there, track by track.

    Args:
        copies: changed copies of each track that are heard too (see copies.py)

    Returns:
        What was heard, and the tracks of which a stage hears nothing (unreadable, too short, silent).

    Raises:
        UsageError: the cache cannot be used.
        BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    clips: list[Clip] = []
    left_out: list[LeftOut] = []
    with Cache(cache, how(bundle, heard), HeardTrack) as kept, _Ears(bundle, heard.hearing, threads) as ears:
        for number, track in enumerate(tracks, start=1):
            say(f"hearing {number} of {len(tracks)}: {printable(track.path.name)}")
            if track.kept is not None:
                clips.append(_from_state(track, heard))
                continue
            try:
                sound = sound_digest(track.path)
                if (found := kept.get(sound)) is None:
                    found = ears.hear(track.path)
                    kept.put(sound, found)
                changed = [ears.hear_copy(track.path, kept, copy_key(sound, i)) for i in range(copies)]
            except (TrackError, OSError) as error:
                left_out.append(LeftOut(track, str(getattr(error, "status", "unreadable"))))
                continue
            if set(found.stages) != set(heard.inputs):
                left_out.append(LeftOut(track, "silent"))
                continue
            whole = [_embeddings(one) for one in changed if set(one.stages) == set(heard.inputs)]
            clips.append(_clip(track, sound, found, tuple(whole)))
    if few := sum(len(clip.copies) < copies for clip in clips):
        say(
            f"warning: {few} tracks have fewer than {copies} copies: there is no file, or a copy is silent or too short"
        )
    return clips, left_out


def hear_nonsense(
    bundle: Bundle, heard: Listening, inputs: Sequence[str], cache: Path, threads: int | None, say: Say
) -> NDArray[np.float32]:
    """The embeddings of ``inputs``, side by side, of every made signal that is not silent: float32[n, width]."""
    names = list(heard.inputs)
    asked = names[: max(names.index(name) for name in inputs) + 1]
    steps = [Step(name, {name: 1.0}, 1.0 if name != asked[-1] else None) for name in asked]
    found = []
    with (
        Cache(cache, how(bundle, heard), HeardTrack) as kept,
        _Ears(bundle, Policy("nonsense", "soft", tuple(steps)), threads) as ears,
    ):
        for number, (signal, samples, rate) in enumerate(recordings(FITTED, seed=0)):
            say(f"hearing made signals: {signal.name}")
            sound = hashlib.sha256(f"nonsense {number} {asked}".encode() + samples.tobytes()).digest()
            if (one := kept.get(sound)) is None:
                one = ears.hear_samples(samples, rate)
                kept.put(sound, one)
            if set(one.stages) >= set(inputs):
                parts = [np.frombuffer(one.stages[name].embeddings[0], "<f4") for name in inputs]
                found.append(np.concatenate(parts))
    return np.stack(found)


class _Ears:
    """A cascade that is opened when it is first needed: what is in the cache already is not heard again."""

    def __init__(self, bundle: Bundle, policy: Policy, threads: int | None) -> None:
        self._bundle, self._policy, self._threads = bundle, policy, threads
        self._cascade: Cascade | None = None
        self._decoder = Decoder(Limits(_MAX_RATE))
        self._copied = ExcerptSpec("center", _COPIED_SECONDS)
        self._buffer = np.empty(round((_COPIED_SECONDS + 1.0) * _MAX_RATE), np.float32)

    @property
    def cascade(self) -> Cascade:
        if self._cascade is None:
            self._cascade = Cascade.open(self._bundle, policy=self._policy, threads=self._threads)
        return self._cascade

    def hear(self, path: Path) -> HeardTrack:
        """Raises ``TrackError`` where nothing can be heard."""
        _, said = self.cascade.step_answers(path)
        return HeardTrack(
            self._stages({n: [one for one in said if one.stage == n] for n in self._policy.stages}), self._facts(path)
        )

    def hear_copy(self, path: Path, kept: Cache[HeardTrack], key: bytes) -> HeardTrack:
        """As :meth:`hear`, of the copy ``key`` of a track, unless it is ``kept``; no stages where it is silent."""
        if (found := kept.get(key)) is None:
            decoded = self._decoder.decode(path, [self._copied], self._buffer)
            samples, rate = changed_copy(decoded.segments[0].samples, decoded.rate, key)
            try:
                said = self.cascade.answers(samples[:, None], rate, stepwise=True)
                stages = self._stages({n: [one for one in said if one.name == n] for n in self._policy.stages})
                found = HeardTrack(stages, _SILENT.facts)
            except TrackError:
                found = _SILENT
            kept.put(key, found)
        return found

    def _stages(self, said: Mapping[str, Sequence[StepAnswer | StageAnswer]]) -> dict[str, HeardStage]:
        """What is kept of the answers of each stage."""
        stages = {}
        for name, answers in said.items():
            own = [answer for answer in answers if answer.embedding is not None]
            if not own:
                continue
            counts = (*self._policy.windows(name), *([None] if self._policy.hears_all(name) else []))
            vectors = {count or 0: _after(own, count).astype("<f4").tobytes() for count in counts}
            stages[name] = HeardStage(own[-1].windows.of, vectors)
        return stages

    def hear_samples(self, samples: NDArray[np.float32], rate: int) -> HeardTrack:
        """As :meth:`hear`, after all windows; no stages where the samples are silent."""
        try:
            said = self.cascade.answers(samples[:, None], rate)
        except TrackError:
            return _SILENT
        stages = {one.name: HeardStage(one.windows.of, {0: one.embedding.astype("<f4").tobytes()}) for one in said}
        return HeardTrack(stages, _SILENT.facts)

    def _facts(self, path: Path) -> tuple[float, int, float, float]:
        found = self._decoder.decode(path, [ExcerptSpec("center", _FACTS_SECONDS)], self._buffer)
        seconds = max(found.total / found.rate, 1e-3)
        loudness = level(np.ascontiguousarray(found.segments[0].samples), found.rate).rms
        decibels = float(20.0 * np.log10(max(loudness, 1e-5)))
        return seconds, found.file_rate, decibels, path.stat().st_size * 8e-3 / seconds

    def __enter__(self) -> _Ears:
        return self

    def __exit__(self, *_: object) -> None:
        if self._cascade is not None:
            self._cascade.close()


def _after(said: Sequence[StepAnswer | StageAnswer], count: int | None) -> Vector:
    """What a stage made of a track after ``count`` windows; of all, where there are no more."""
    found = next((one for one in said if one.windows.heard == count), said[-1]).embedding
    if found is None:
        raise AssertionError("only answers with an embedding are given")
    return found


def sound_digest(path: Path) -> bytes:
    """A digest of a file's sound; of its bytes, where PyAV is not there or cannot read it."""
    found = audio_hash(path)
    if found is not None:
        return found
    with path.open("rb") as file:
        return hashlib.blake2b(file.read(), digest_size=24).digest()


def _clip(track: Labelled, sound: bytes, found: HeardTrack, copies: tuple[dict[Asked, Vector], ...]) -> Clip:
    windows = {name: stage.windows for name, stage in found.stages.items()}
    return Clip(track, sound, _embeddings(found), windows, Facts(*found.facts), copies)


def _embeddings(found: HeardTrack) -> dict[Asked, Vector]:
    return {
        (name, count or None): np.frombuffer(content, "<f4")
        for name, stage in found.stages.items()
        for count, content in stage.embeddings.items()
    }


def _from_state(track: Labelled, heard: Listening) -> Clip:
    """What a state file keeps of a track: one embedding per stage, after as many windows as were heard then."""
    vectors = {name: np.frombuffer(content, "<f2").astype(np.float32) for name, content in (track.kept or {}).items()}
    if missing := [name for name in heard.inputs if name not in vectors]:
        raise UsageError(f"{track.path}: expected kept embeddings of every stage, there are none of {missing}")
    sound = track.sound or _digest_of_file(track.path)
    known = sound is not None
    if sound is None:
        sound = hashlib.blake2b(b"".join(vectors[name].tobytes() for name in heard.inputs), digest_size=24).digest()
    return Clip(track, sound, at_every_count(vectors, heard), {}, None, audio=known)


def _digest_of_file(path: Path) -> bytes | None:
    """``sound_digest``; None where the file is not there or cannot be read."""
    try:
        return sound_digest(path)
    except OSError:
        return None


def at_every_count(vectors: dict[str, Vector], heard: Listening) -> dict[Asked, Vector]:
    """The only embedding of each stage, for each count of windows that a policy asks after."""
    return {(name, count): vectors[name] for name, counts in heard.counts.items() for count in counts}
