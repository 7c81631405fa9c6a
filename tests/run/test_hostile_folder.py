"""A folder of everything that goes wrong with files: one verdict each, the right status, the good ones right."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import bundles
import synth
from command import run

RATE = 44_100


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> NDArray[np.float32]:
    mono = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.repeat(mono[:, None], channels, axis=1).astype(np.float32)


def truncated_flac(path: Path) -> None:
    """Cut in the middle of the excerpt (the whole track is shorter than 30 s)."""
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def wav_header_only(path: Path) -> None:
    fmt = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    path.write_bytes(b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data\0\0\0\0")


def with_value(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        samples = tone(3)
        samples[RATE, 0] = value
        soundfile.write(path, samples, RATE, subtype="FLOAT")

    return write


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.wav": (lambda path: path.write_bytes(b""), "empty"),
    "text.mp3": (lambda path: path.write_text("this is no music, although it says so\n" * 50), "corrupt"),
    "truncated.flac": (truncated_flac, "ok"),
    "header only.wav": (wav_header_only, "empty"),
    "zeros.wav": (lambda path: soundfile.write(path, np.zeros(3 * RATE), RATE), "silent"),
    "50ms.wav": (lambda path: soundfile.write(path, tone(0.05), RATE), "too_short"),
    "one sample.wav": (lambda path: soundfile.write(path, tone(1 / RATE), RATE), "too_short"),
    "nan.wav": (with_value(np.nan), "corrupt"),
    "inf.wav": (with_value(np.inf), "corrupt"),
    "8 channels.wav": (lambda path: soundfile.write(path, tone(3, channels=8), RATE), "ok"),
    "8 kHz mono.wav": (lambda path: soundfile.write(path, tone(3, 8_000), 8_000), "ok"),
    "192 kHz.wav": (lambda path: soundfile.write(path, tone(3, 192_000, 2), 192_000), "ok"),
    "with spaces  and 'quotes'.flac": (lambda path: soundfile.write(path, tone(3), RATE), "ok"),
    "🎵 emoji 🎸.ogg": (lambda path: soundfile.write(path, tone(3), RATE), "ok"),
    "中文歌曲.mp3": (lambda path: soundfile.write(path, tone(3), RATE), "ok"),
    "line\nbreak.wav": (lambda path: soundfile.write(path, tone(3), RATE), "ok"),
    "locked.wav": (lambda path: soundfile.write(path, tone(3), RATE), "unreadable"),
    "dangling.wav": (lambda path: path.symlink_to("nowhere.wav"), "missing"),
    "folder.mp3/inside.wav": (lambda path: soundfile.write(path, tone(3), RATE), "ok"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "music"
    for name, (write, _) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    # Permissions do not bind root, who runs the tests in containers: refuse the one file by hand.
    (root / "locked.wav").chmod(0)
    open_file = os.open

    def refusing(path: str, *arguments: int, **options: int) -> int:
        if str(path).endswith("locked.wav"):
            raise PermissionError(13, "Permission denied", path)
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    return root


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_file_has_its_verdict(folder: Path, tmp_path: Path, jobs: int) -> None:
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    bundle = bundles.make_bundle(tmp_path / "bundle", stages, biases={"fma": (0.0, 0.2, 0.1), "mert": (9.0, 0.0, 0.0)})
    done = run("classify", folder, "--bundle", bundle, "-f", "jsonl", "--jobs", jobs)
    assert done.returncode == 3, done.stderr
    verdicts = {Path(v["path"]).relative_to(folder).as_posix(): v for v in map(json.loads, done.stdout.splitlines())}
    assert {name: v["status"] for name, v in verdicts.items()} == {name: status for name, (_, status) in FILES.items()}
    for name, verdict in verdicts.items():
        if verdict["status"] == "ok":
            assert (verdict["genre"], verdict["error"]) == ("Alpha", None), name
        else:
            assert verdict["genre"] is None, name
            assert verdict["error"], name


def test_the_genre_does_not_depend_on_rate_container_or_channels(tmp_path: Path) -> None:
    """The same music in every form; the embeddings differ by no more than resampling and coding make them."""
    from edge_reclass import Cascade

    samples = synth.music(6.0, rate=22_050, channels=1)[:, 0]
    bundle = bundles.make_bundle(tmp_path / "b", [bundles.fma_stage(), bundles.waveform_stage("mert")], accept=1.0)
    with Cascade.open(bundle) as cascade:
        reference = cascade.classify_samples(samples, 22_050)
        base = cascade._lane.workspace.embeddings["mert"].copy()
        from edge_reclass.audio import Resampler

        for rate in (44_100, 48_000, 96_000, 192_000):
            out = np.empty(7 * rate, np.float32)
            n = Resampler().resample(samples, 22_050, rate, out)
            for channels in (1, 2, 6):
                verdict = cascade.classify_samples(np.repeat(out[:n, None], channels, axis=1), rate)
                assert verdict.genre == reference.genre
                assert verdict.confidence == pytest.approx(reference.confidence, abs=1e-3)
                np.testing.assert_allclose(cascade._lane.workspace.embeddings["mert"], base, rtol=1e-3)
        for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
            soundfile.write(tmp_path / name, samples, 22_050)
            verdict = cascade.classify(tmp_path / name)
            assert verdict.genre == reference.genre, name
            assert verdict.confidence == pytest.approx(reference.confidence, abs=1e-2), name
