"""Contests: interleaved, warm, and only between those who do the same work."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from edge_reclass.bundle.loading import load
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_bench.peers.clips import at_rate, decoded
from edge_reclass_bench.peers.contest import Contender, Task, hold
from edge_reclass_bench.peers.parity import close_features, close_values, same_direction
from edge_reclass_bench.peers.session import measure_peers
from edge_reclass_bench.peers.tasks import encoder_tasks, features_task
from edge_reclass_bench.record import Peer, Settings, save
from edge_reclass_bench.record import load as load_record
from edge_reclass_bench.report import tagged
from edge_reclass_bench.report.figures import figures
from edge_reclass_bench.tracks import find

SETTINGS = Settings(min_seconds=0.0, min_count=4, warm_up=1, jobs=1, threads=1, batch=1, seed=1, resamples=200)


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def contender(name, clock, seconds, log, answer=1.0, agrees=None):
    def run(clip):
        log.append((name, clip))
        clock.now += seconds * (1 + clip)
        return np.array([answer])

    return Contender(name, name.title(), run, agrees=agrees)


def test_all_take_turns_and_the_ratio_is_that_of_the_same_clip():
    clock, log = Clock(), []
    ours = contender("ours", clock, 0.002, log)
    others = [contender("slow", clock, 0.008, log), contender("fast", clock, 0.001, log)]
    measures, peers = hold(Task("work", "features", 3, ours, others), SETTINGS, clock=clock)
    assert {peer.title: round(peer.ratio.value, 6) for peer in peers} == {"Slow": 4.0, "Fast": 0.5}
    assert peers[0].ratio.low == pytest.approx(4.0) and peers[0].ours == measures[0].key
    for measure in measures:
        assert measure.summary.n == 12 and measure.passes == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        assert measure.tracks == [0, 1, 2] * 4
    assert measures[0].samples == pytest.approx([2.0, 4.0, 6.0] * 4)
    contest = log[-3 * 3 * (SETTINGS.min_count + SETTINGS.warm_up) :]
    turns = [[name for name, _ in contest[i : i + 3]] for i in range(0, len(contest), 3)]
    assert all(sorted(turn) == ["fast", "ours", "slow"] for turn in turns)
    assert {turn[0] for turn in turns} == {"ours", "slow", "fast"}, "another one begins each time"
    assert [clip for _, clip in contest] == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 5


def test_who_answers_otherwise_is_not_measured():
    clock, log = Clock(), []
    ours = contender("ours", clock, 1.0, log)
    other = contender("other", clock, 1.0, log, answer=2.0, agrees=close_values(0.5))
    with pytest.raises(EdgeReclassError, match=r"work: Other does other work .* on clip 0: expected differences up to"):
        hold(Task("work", "features", 2, ours, [other]), SETTINGS, clock=clock)
    assert len(log) == 2


def test_what_counts_as_the_same_answer():
    a = np.array([1.0, 2.0, 3.0])
    assert same_direction(0.999)(a, 5 * a) is None
    assert "got 0.9" in (same_direction(0.9999)(a, a + np.array([0.5, 0, 0])) or "")
    assert close_values(0.1)(a, a + 0.09) is None and close_values(0.1)(a, a + 0.2)
    assert "expected [3] values" in (close_values(0.1)(a, a[:2]) or "")
    features = np.linspace(-1, 1, 518)
    few, many = features.copy(), features.copy()
    few[:5] += 1
    many[:6] += 1
    assert close_features(features, few) is None
    assert "6 of 518" in (close_features(features, many) or "")
    assert close_features(np.zeros(518), np.full(518, np.nan)) is None, "librosa's nan is our 0"


def test_librosa_gives_our_features(audio):
    pytest.importorskip("librosa", reason="librosa is not installed")
    clips = list(decoded(audio[:2]))
    with ExitStack() as resources:
        task = features_task(clips, 22_050, resources)
        measures, (peer,) = hold(task, msgspec.structs.replace(SETTINGS, min_count=2))
    assert peer.ratio is not None and peer.ratio.value > 0
    assert {measure.part for measure in measures} == {"features"}


def test_torch_gives_our_embeddings_with_the_same_untrained_weights(synthetic, audio):
    clips = list(decoded(audio[:2]))
    found = []
    for task in encoder_tasks(load(synthetic.root), clips, threads=1):
        assert isinstance(task, Task)
        found.append(task.name)
        for clip, other in zip(count(), task.others, strict=False):
            ours = np.array(task.ours.run(clip % 2))
            assert other.agrees is not None
            assert other.agrees(ours, other.run(clip % 2)) is None, other.title
            assert other.agrees(-ours, other.run(clip % 2)), "the check can fail"
        assert [other.title for other in task.others] == ["torch eager", "torch sdpa", "torch sdpa bf16"]
    assert [name.split(",")[0] for name in found] == ["mert-95m", "openjmla"]
    (only,) = encoder_tasks(load(synthetic.root), clips, 1, ["openjmla"])
    assert only.name == found[1]
    with pytest.raises(UsageError, match="--encoders: expected some of mert-95m, openjmla, got fma"):
        list(encoder_tasks(load(synthetic.root), clips, 1, ["fma"]))


def test_an_encoder_that_torch_does_not_know_is_said_to_be_absent(audio):
    from edge_reclass.bundle.loading import starter_path

    (peer,) = encoder_tasks(load(starter_path()), list(decoded(audio[:1])), threads=1)
    assert isinstance(peer, Peer) and peer.ratio is None
    assert "musicnn" in (peer.reason or "") or "not installed" in (peer.reason or "")


# What librosa.load imports for formats that libsndfile does not know.
@pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")
def test_the_whole_session_as_a_record_that_the_report_shows(synthetic, audio, tmp_path):
    pytest.importorskip("librosa", reason="librosa is not installed")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    tracks = find([str(bad), str(audio[0])])
    settings = msgspec.structs.replace(SETTINGS, min_count=2)
    said: list[str] = []
    record = measure_peers(
        load(synthetic.root), tracks, settings, rates=[22_050], encoders=["openjmla"], say=said.append
    )
    save(record, tmp_path / "peers.json")
    assert load_record(tmp_path / "peers.json") == record
    assert [peer.title for peer in record.peers].count("torch sdpa") == 1
    assert len(record.peers) == 1 + 3 + 1 and len(said) == 3
    assert record.subject.synthetic and record.warnings
    assert [track.status for track in record.tracks] == ["ok", "error"]
    (figure,) = figures(tagged([("peers.json", record)]))
    assert figure.key == "peers"


def test_no_track_is_an_error(audio, tmp_path):
    from edge_reclass.bundle.loading import starter_path

    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="none of the 1 tracks"):
        measure_peers(load(starter_path()), find([str(bad)]), SETTINGS)


def test_clips_are_the_middle_of_their_file(audio):
    (clip,) = decoded(audio[:1], seconds=1.0)
    assert (clip.rate, len(clip.samples)) == (44_100, 44_100)
    assert len(at_rate(clip, 22_050)) == 22_050
    (whole,) = decoded(audio[:1])
    assert np.array_equal(clip.samples, whole.samples[44_100:88_200])


@pytest.fixture
def app():
    import typer

    from edge_reclass_bench.peers.command import peers
    from edge_reclass_bench.report.command import report

    app = typer.Typer()
    app.command()(peers)
    app.command()(report)
    return app


def test_the_commands(app, audio, tmp_path):
    pytest.importorskip("librosa", reason="librosa is not installed")
    record, page = tmp_path / "p.json", tmp_path / "p.html"
    options = ["--tasks", "features", "--clips", "1", "--repeats", "2", "-o", str(record)]
    result = CliRunner().invoke(app, ["peers", str(audio[0]), *options])
    assert result.exception is None and "| 518 features, 44.1 kHz | librosa |" in result.stdout
    result = CliRunner().invoke(app, ["report", str(record), "--html", str(page)])
    assert result.exception is None and "<h2>Beside other programs</h2>" in page.read_text()
    assert result.stdout == "" and not list(tmp_path.glob(".*"))
    result = CliRunner().invoke(app, ["report", str(record), str(record), "--markdown"])
    assert "|  | A | B |" in result.stdout
    for wrong in (["peers", str(audio[0]), "--tasks", "x"], ["report", str(record), "--html", str(tmp_path)]):
        assert isinstance(CliRunner().invoke(app, wrong).exception, UsageError)
    nowhere = ["report", str(record), "--html", str(tmp_path / "no" / "x.html")]
    assert isinstance(CliRunner().invoke(app, nowhere).exception, UsageError)
