"""Listening less: what the policy's first steps hear is read first, the rest when it is asked for; damage, silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import bundles
from edge_reclass import Cascade, CascadePool, Verdict
from edge_reclass.audio import Run
from edge_reclass.cascade import cascade as cascade_module
from edge_reclass.cascade.encoders import base
from edge_reclass.cascade.policy import Policy, Step
from edge_reclass.cascade.sound import heard_first
from edge_reclass.cascade.windowing import listening_order
from lanes_device import SharingDevice

RATE = 44_100
SECONDS = 20
START, LENGTH = 4.0, 12
"""The excerpt."""
MERT, JMLA = {"mert": 1.0}, {"jmla": 1.0}
ONE = Policy("one", "soft", (Step("mert", MERT, 0.0, 1), Step("mert", MERT)))
"""Content with the first window that it hears."""
LISTEN = Policy(
    "listen",
    "soft",
    (
        Step("mert", MERT, 0.95, 1),
        Step("mert", MERT, 0.95, 3),
        Step("jmla", JMLA, 0.9, 1),
        Step("jmla", JMLA, 0.9, 2),
        Step("jmla", JMLA),
    ),
)
"""Mert after 1 and 3 of its 24 windows of 0.5 s and never after all, jmla after 1, 2 and all of its 12."""
THOROUGH = Policy("thorough", "soft", (Step("mert", MERT, 1.0), Step("jmla", JMLA)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = [
        bundles.waveform_stage("mert", window=8_000),
        bundles.waveform_stage("jmla", rate=8_000, window=8_000, head={"inputs": ["mert", "jmla"]}),
    ]
    excerpt = {"start": "center", "seconds": LENGTH}
    root = bundles.make_bundle(tmp_path_factory.mktemp("bundle"), stages, excerpt=excerpt, min_confidence=0.0)
    bundles.random_heads(root, stages, 6.0)
    return root


def music(seed: int) -> NDArray[np.float32]:
    """Half seconds that each have a level of their own: float32[n, 2]."""
    random = np.random.default_rng(seed)
    levels = 10.0 ** random.uniform(-3.5, -0.7, 2 * SECONDS)
    levels[random.random(len(levels)) < (0.4 if seed % 4 == 0 else 0.0)] = 0.0
    samples = random.standard_normal((2 * SECONDS, RATE // 2, 2)) * levels[:, None, None]
    return samples.reshape(-1, 2).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root, paths = tmp_path_factory.mktemp("tracks"), []
    for seed in range(16):
        paths.append(root / f"{seed}.{'flac' if seed % 2 else 'ogg'}")
        with soundfile.SoundFile(paths[-1], "w", RATE, 2) as file:
            file.write(music(seed))
    return paths


def said(verdict: Verdict) -> Any:
    """Everything in a verdict but what it took, at full precision."""
    stages = [(stage.name, stage.genre, stage.confidence, stage.excerpt, stage.windows) for stage in verdict.stages]
    names = ("status", "genre", "confidence", "decided_by", "reason", "top", "damage", "channel", "error")
    return [getattr(verdict, name) for name in names], stages


def heard(verdict: Verdict) -> list[tuple[str, int, int]]:
    return [(stage.name, stage.windows.heard, stage.windows.of) for stage in verdict.stages if stage.windows]


class Reads:
    """Which runs of each track were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[Run, ...]] = []
        ask = Cascade._ask

        def asking(cascade: Cascade, run: Any, track: Any) -> None:
            try:
                ask(cascade, run, track)
            finally:
                self.read.append(track.decoded.read)

        monkeypatch.setattr(Cascade, "_ask", asking)

    def seconds(self) -> float:
        """Of the last track."""
        return sum(stop - start for start, stop in self.read[-1]) / RATE


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def test_a_first_stage_with_a_short_excerpt_and_the_windows_after_it_are_read_at_once(tmp_path: Path) -> None:
    short = {"start": "center", "seconds": 2.0}
    stages = [bundles.waveform_stage("mert", excerpt=short), bundles.waveform_stage("jmla", window=8_000)]
    weights = {"jmla": 1.0}
    steps = [
        {"after": "mert", "weights": {"mert": 1.0}, "accept": 1.0},
        {"after": "jmla", "weights": weights, "windows": 1, "accept": 0.5},
        {"after": "jmla", "weights": weights},
    ]
    root = bundles.make_bundle(tmp_path, stages, policies={"p": {"vote": "soft", "steps": steps}}, default_policy="p")
    with Cascade.open(root) as cascade:
        first, then = heard_first(cascade.plan, 30 * RATE, RATE)
    assert first == (14 * RATE, 16 * RATE)
    assert RATE / 2 <= then[1] - then[0] < 3 * RATE


def everything(plan: Any, total: int, rate: int) -> Sequence[Run]:
    del plan, rate
    return [(0, total)]


def test_verdicts_do_not_depend_on_what_was_read_when(
    bundle: Path, tracks: list[Path], reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cascade.open(bundle, policy=LISTEN) as cascade:
        parts = [cascade.classify(track) for track in tracks]
        ends = Counter(heard(verdict)[-1][:2] for verdict in parts)
        assert {("mert", 1), ("mert", 3), ("jmla", 1), ("jmla", 2)} <= set(ends), ends
        assert any(name == "jmla" and count > 2 for name, count in ends), ends
        assert {sum(b - a for a, b in read) < 6 * RATE for read in reads.read} == {True, False}
        monkeypatch.setattr(cascade_module, "heard_first", everything)
        assert [said(cascade.classify(track)) for track in tracks] == [said(verdict) for verdict in parts]


@pytest.fixture(params=[False, True], ids=["step by step", "ahead"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """What a device's batches cost, as if it had been measured so."""
    monkeypatch.setattr(base, "_CHEAP", 1e9 if request.param else 0.0)
    yield request.param


@pytest.mark.parametrize(("lanes", "batch"), [(1, 1), (2, 3), (5, 16)])
def test_every_grouping_gives_the_same_verdicts(
    bundle: Path, tracks: list[Path], tmp_path: Path, lanes: int, batch: int, ahead: bool
) -> None:
    broken = [spoilt(tmp_path / f"{i}.mka", *places) for i, places in enumerate([(9.5,), (5.0,), (9.5, 10.0, 9.0)])]
    paths = [*tracks, *broken]
    with Cascade.open(bundle, policy=LISTEN) as cascade:
        expected = [said(verdict) for verdict in cascade.classify_many(paths)]
    with CascadePool.open(lanes, bundle, SharingDevice(), LISTEN, batch=batch) as pool:
        assert [said(verdict) for verdict in pool.classify_many(paths)] == expected
    if not ahead:
        with CascadePool.open(lanes, bundle, policy=LISTEN, batch=batch) as pool:
            assert [said(verdict) for verdict in pool.classify_many(paths)] == expected


def test_only_what_is_needed_is_read(bundle: Path, tracks: list[Path], reads: Reads) -> None:
    with Cascade.open(bundle, policy=ONE) as cascade:
        verdict = cascade.classify(tracks[1])
        assert heard(verdict) == [("mert", 1, 24)]
        assert reads.seconds() < 1.1, "the tile of a second that holds the window, and the resampler's margins"
        assert verdict.stages[0].excerpt.seconds == LENGTH
    with Cascade.open(bundle, policy=THOROUGH) as cascade:
        cascade.classify(tracks[1])
        assert reads.read[-1] == ((round(START * RATE), round((START + LENGTH) * RATE)),)
    never = Policy("never", "soft", (Step("mert", MERT, 1.0, 3), Step("mert", MERT, 1.0), Step("jmla", JMLA)))
    with Cascade.open(bundle, policy=never) as cascade:
        verdict = cascade.classify(tracks[1])
        assert heard(verdict) == [("mert", 24, 24), ("jmla", 12, 12)]
        assert reads.seconds() == LENGTH
        assert "read" in {part.name for part in verdict.stages[0].parts}
        assert "read" not in {part.name for part in verdict.stages[1].parts}


def test_other_excerpts_are_read_when_their_stage_runs(tmp_path: Path, tracks: list[Path], reads: Reads) -> None:
    stages = [bundles.waveform_stage("mert"), bundles.waveform_stage("jmla", excerpt={"full": True})]
    made = bundles.make_bundle(tmp_path, stages, biases={"mert": (1.0, 0.0, 0.0)}, min_confidence=0.0)
    for accept, seconds in ((0.1, 4.0), (0.99, 20.0)):
        policy = Policy("p", "soft", (Step("mert", MERT, accept), Step("jmla", JMLA)))
        with Cascade.open(made, policy=policy) as cascade:
            cascade.classify(tracks[1])
            assert reads.seconds() == seconds


def test_a_stage_may_be_left_before_it_has_heard_all(bundle: Path, tracks: list[Path]) -> None:
    steps = (Step("mert", MERT, 1.0, 3), Step("jmla", JMLA))
    with Cascade.open(bundle, policy=Policy("left", "soft", steps)) as cascade:
        for track in tracks[1::4]:
            assert heard(cascade.classify(track)) == [("mert", 3, 24), ("jmla", 12, 12)]
        short = music(1)[: 2 * RATE // 2]
        verdict = cascade.classify_samples(short, RATE)
        assert heard(verdict) == [("mert", 2, 2), ("jmla", 1, 1)]
        assert verdict.reason == "last stage of left"


def test_where_the_middle_is_silent_the_next_windows_are_read(bundle: Path, reads: Reads) -> None:
    made = music(1)
    made[9 * RATE : 11 * RATE] = 0.0
    with Cascade.open(bundle, policy=ONE) as cascade:
        verdict = cascade.classify_samples(made, RATE)
        assert heard(verdict) == [("mert", 1, 24)]
        assert reads.seconds() == LENGTH
        made[:] = 0.0
        assert cascade.classify_samples(made, RATE).status == "silent"


def spoilt(path: Path, *seconds: float) -> Path:
    """FLAC in Matroska with a damaged spot in each half second that begins at one of these places.

    Matroska says where a packet ends: what is lost does not depend on how a decoder searches for the next one.
    """
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="matroska") as target:
        stream = target.add_stream("flac", rate=RATE, layout="stereo")
        samples = (music(1) * 32_767).astype(np.int16)
        for begin in (*range(0, len(samples), 4096), None):
            part = None
            if begin is not None:
                part = av.AudioFrame.from_ndarray(samples[begin : begin + 4096].reshape(1, -1), "s16", "stereo")
                part.sample_rate, part.pts = RATE, begin
            for packet in stream.encode(part):
                at = float(packet.pts * packet.time_base) if packet.pts is not None else -1.0
                if any(place + 0.1 < at < place + 0.3 for place in seconds):
                    spot = av.Packet(bytes(packet.size))
                    spot.pts, spot.dts, spot.duration = packet.pts, packet.dts, packet.duration
                    spot.time_base, spot.stream = packet.time_base, stream
                    packet = spot
                target.mux(packet)
    return path


def test_damage_outside_of_the_windows_heard_is_not_met(bundle: Path, tmp_path: Path) -> None:
    whole = spoilt(tmp_path / "whole.mka")
    path = spoilt(tmp_path / "a.mka", 5.0, 5.5, 6.0, 13.0)
    with Cascade.open(bundle, policy=ONE) as cascade:
        assert said(cascade.classify(path)) == said(cascade.classify(whole))
    with Cascade.open(bundle, policy=THOROUGH) as cascade:
        verdict = cascade.classify(path)
        assert verdict.status == "ok"
        assert verdict.damage is not None
        assert 0.04 < verdict.damage.missing < 0.2
        assert [(count, of) for _, count, of in heard(verdict)] == [(20, 24), (9, 12)]


def test_a_damaged_window_leads_to_the_next_in_order(bundle: Path, tmp_path: Path) -> None:
    # The first in order are the windows at 5.5 and 6 s of the excerpt, which begins at 4 s.
    assert [START + i / 2 for i in listening_order(24)[:3]] == [9.5, 10.0, 9.0]
    made = music(1)
    with Cascade.open(bundle, policy=ONE) as cascade:
        for places, at in (((9.5,), 10.0), ((9.5, 10.0), 9.0)):
            verdict = cascade.classify(spoilt(tmp_path / "a.mka", *places))
            assert (verdict.status, heard(verdict)) == ("ok", [("mert", 1, 24)])
            assert verdict.damage is not None
            got = cascade._lane.workspace.embeddings["mert"].copy()
            alone = np.zeros_like(made)
            alone[round(at * RATE) : round((at + 0.5) * RATE)] = made[round(at * RATE) : round((at + 0.5) * RATE)]
            expected = cascade.embed_samples(alone, RATE)["mert"]
            np.testing.assert_allclose(got, expected, rtol=1e-2)


def test_where_every_window_is_damaged_the_track_is_corrupt(bundle: Path, tmp_path: Path) -> None:
    everywhere = spoilt(tmp_path / "a.mka", *(START - 0.5 + i / 2 for i in range(26)))
    for policy in (ONE, LISTEN, THOROUGH):
        with Cascade.open(bundle, policy=policy) as cascade:
            verdict = cascade.classify(everywhere)
            assert verdict.status == "corrupt", said(verdict)
            assert verdict.error is not None
            assert "of the excerpt can be decoded" in verdict.error


def test_where_the_only_sound_is_damaged_the_track_is_not_called_silent(bundle: Path, tmp_path: Path) -> None:
    quiet = np.zeros_like(music(1))
    sound = slice(9 * RATE, round(9.5 * RATE))
    with Cascade.open(bundle, policy=THOROUGH) as cascade:
        for samples, status in ((0.0, "silent"), (music(1)[sound], "ok"), (np.nan, "corrupt")):
            quiet[sound] = samples
            soundfile.write(tmp_path / "a.wav", quiet, RATE, subtype="FLOAT")
            verdict = cascade.classify(tmp_path / "a.wav")
            assert verdict.status == status, said(verdict)
    assert "could not be decoded" in str(verdict.error) or "holds NaN" in str(verdict.error)


@pytest.mark.parametrize(("error", "status"), [(OSError(5, "I/O"), "unreadable"), (MemoryError(), "out_of_memory")])
def test_what_fails_in_the_second_read_is_that_track_s_status(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    never = Policy("never", "soft", (Step("mert", MERT, 1.0, 1), Step("mert", MERT)))
    with Cascade.open(bundle, policy=never) as cascade:
        expected = said(cascade.classify(tracks[1]))
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise error

            patch.setattr("edge_reclass.audio.decode.read_on", fail)
            failed = cascade.classify(tracks[1])
            assert failed.status == status
            assert failed.stages == () or heard(failed) == [("mert", 1, 24)]
        assert said(cascade.classify(tracks[1])) == expected


def test_a_pipe_is_no_track(bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "a.mka")
    with Cascade.open(bundle, policy=ONE) as cascade:
        assert cascade.classify(pipe).status == "unsupported"
