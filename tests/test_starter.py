"""The bundle that is embedded in the package: whole, documented, and the same music gives the same genre."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import synth
from edge_reclass import Cascade
from edge_reclass.audio import Decoder, ExcerptSpec, Resampler
from edge_reclass.bundle import MANIFEST, WaveformEntry, load, starter_path
from edge_reclass.plan import choose_policy
from edge_reclass.reference import agreement, load_reference


@pytest.fixture(scope="module")
def cascade() -> Iterator[Cascade]:
    with Cascade.open() as opened:
        yield opened


def test_it_is_whole() -> None:
    bundle = load(starter_path())
    bundle.verify()
    listed = {MANIFEST, *bundle.manifest.files}
    found = {path.relative_to(bundle.root).as_posix() for path in bundle.root.rglob("*") if path.is_file()}
    assert found == listed, "every file is listed, and nothing else lies there"
    assert {"README.md", "LICENSE.musicnn"} <= listed
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 8e6
    for policy in bundle.manifest.policies:
        choose_policy(bundle, policy)


def test_its_card_names_its_genres_and_policy() -> None:
    bundle = load(starter_path())
    card = bundle.path("README.md").read_text(encoding="utf-8")
    assert ", ".join(bundle.manifest.genres) in card
    accept = bundle.manifest.policies[bundle.manifest.default_policy].steps[0].accept
    assert f"above {accept:g}" in card
    assert "Music Technology Group" in bundle.path("LICENSE.musicnn").read_text(encoding="utf-8")


def test_its_encoder_gives_the_reference_vectors() -> None:
    from edge_reclass.backends.ort import OrtBackend

    bundle = load(starter_path())
    entry = bundle.manifest.stage("musicnn").encoder
    assert isinstance(entry, WaveformEntry)
    assert entry.reference is not None
    reference = load_reference(bundle.path(entry.reference))
    rows = reference.inputs()
    graph = OrtBackend(1).open_graph(
        bundle.path(entry.files["fp32"]),
        input_name="waveform",
        output_name="embedding",
        width=entry.window_samples,
        output_width=entry.dim,
        max_batch=len(rows),
    )
    graph.input[:] = rows
    found = agreement(reference.embedding, graph.run(len(rows)))
    graph.close()
    assert found.cosine > 0.99999
    assert found.relative < 1e-3


def test_any_music_gets_a_genre(cascade: Cascade) -> None:
    verdict = cascade.classify_samples(synth.music(12), 44_100)
    assert verdict.status == "ok"
    assert verdict.genre in cascade.plan.genres
    assert sum(score.score for score in verdict.top) == pytest.approx(1)


def test_policies(cascade: Cascade) -> None:
    samples = synth.music(12)
    with Cascade.open(policy="fast") as fast, Cascade.open(policy="thorough") as thorough:
        assert [stage.name for stage in fast.classify_samples(samples, 44_100).stages] == ["fma"]
        assert [stage.name for stage in thorough.classify_samples(samples, 44_100).stages] == ["fma", "musicnn"]


def clips(data: Path, wanted: int) -> list[tuple[Path, str]]:
    """The first ``wanted`` clips of each genre that are at least 10 s long."""
    found: dict[str, list[tuple[Path, str]]] = {}
    with (data / "index.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if float(row["seconds"]) >= 10 and row["dataset"] != "emotify":
                found.setdefault(row["genre"], []).append((data / row["path"], row["genre"]))
    return [clip for genre in found.values() for clip in genre[:wanted]]


def test_clips_that_it_was_fitted_on(cascade: Cascade, data: Path) -> None:
    """No measure of accuracy (the card has that), but of the way from the file to the genre: it must be the same
    as at fitting, and a wrong rate, window, scaler or order of genres would leave little of this."""
    genres = {"hiphop": "Hip-Hop", "metal": "Rock"}
    right = [cascade.classify(path).genre == genres.get(genre, genre.capitalize()) for path, genre in clips(data, 3)]
    assert np.mean(right) > 0.9


def test_fma_clips_from_elsewhere(cascade: Cascade, data: Path) -> None:
    folder = data / "audio" / "fma"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["file"]: row["top_genre"] for row in csv.DictReader(file)}
    right = sum(cascade.classify(folder / file).genre == genre for file, genre in labels.items())
    assert right > len(labels) / 2, f"{right} of {len(labels)}"


def test_the_genre_does_not_depend_on_rate_or_container(cascade: Cascade, data: Path, tmp_path: Path) -> None:
    """Real music at 22.05 kHz, resampled up and in other containers: the same genre and nearly the same score.

    Lossy coding and 16 bits change the samples themselves, so there a few clips may change their genre. A clip whose
    two best scores are within 0.1 is no test of any of this and is left out.
    """
    decoder, resampler = Decoder(), Resampler()
    buffer = np.empty(31 * 192_000, np.float32)
    recoded = []
    for path, _ in clips(data, 2):
        decoded = decoder.decode(path, [ExcerptSpec("center", 30.0)], buffer)
        samples, rate = decoded.samples.copy(), decoded.rate
        before = cascade.classify_samples(samples, rate)
        if before.top[0].score - before.top[1].score < 0.1:
            continue
        for other in (32_000, 44_100, 48_000, 96_000):
            out = np.empty(31 * other, np.float32)
            n = resampler.resample(samples, rate, other, out)
            after = cascade.classify_samples(out[:n], other)
            assert after.genre == before.genre, (path.name, other)
            assert after.confidence == pytest.approx(before.confidence, abs=0.05), (path.name, other)
        for suffix, subtype in ((".wav", "FLOAT"), (".flac", "PCM_24")):
            after = cascade.classify(synth.write(tmp_path / f"x{suffix}", samples, rate, subtype))
            assert after.genre == before.genre, (path.name, suffix)
            assert after.confidence == pytest.approx(before.confidence, abs=0.05), (path.name, suffix)
        for suffix in (".wav", ".alac.m4a", ".ogg", ".mp3", ".m4a"):
            after = cascade.classify(synth.write(tmp_path / f"y{suffix}", samples, rate))
            recoded.append(after.genre == before.genre)
    assert len(recoded) >= 40
    assert np.mean(recoded) >= 0.9


def test_a_low_rate_is_no_genre(cascade: Cascade, data: Path) -> None:
    """A file at 8, 11.025 or 16 kHz lacks the upper part of the spectrum; that must not decide what it is."""
    decoder, resampler = Decoder(), Resampler()
    buffer, out = np.empty(31 * 192_000, np.float32), np.empty(31 * 16_000, np.float32)
    genres = {"hiphop": "Hip-Hop", "metal": "Rock"}
    for rate in (8_000, 11_025, 16_000):
        right = []
        for path, genre in clips(data, 2):
            decoded = decoder.decode(path, [ExcerptSpec("center", 30.0)], buffer)
            n = resampler.resample(decoded.samples, decoded.rate, rate, out)
            verdict = cascade.classify_samples(out[:n], rate)
            right.append(verdict.genre == genres.get(genre, genre.capitalize()))
        assert np.mean(right) >= 0.8, rate
