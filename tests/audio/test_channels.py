"""Channels: what cancels when mixed is heard from one channel; what is only quiet, silent or unrelated is mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import synth
from edge_reclass.audio import Decoded, Decoder, ExcerptSpec, mix_excerpt

FULL = [ExcerptSpec(seconds=None)]
RATE = 22_050


def mixed(samples: np.ndarray, specs: list[ExcerptSpec] = FULL) -> Decoded:
    return mix_excerpt(samples.astype(np.float32), RATE, specs, np.empty(len(samples), np.float32))


def tracks(channels: int, seconds: float = 4.0) -> np.ndarray:
    """Unrelated mono signals side by side."""
    return np.concatenate([synth.music(seconds, RATE, 1, seed) for seed in range(channels)], axis=1)


@pytest.mark.parametrize("residue", [0.0, 0.01, 0.1, 0.3])
@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_antiphase_is_heard_from_the_louder_channel(residue: float, level: float) -> None:
    mono = level * synth.music(4, RATE, 1)
    samples = np.concatenate([-(1 - residue) * mono, mono], axis=1)
    decoded = mixed(samples)
    assert decoded.channel == (1 if residue else 0)
    np.testing.assert_array_equal(decoded.segments[0].samples, samples[:, decoded.channel].astype(np.float32))


@pytest.mark.parametrize("dc", [(0.5, 0.5), (0.3, -0.2), (0.0, 0.4)])
def test_dc_hides_no_cancellation(dc: tuple[float, float]) -> None:
    mono = 0.1 * synth.music(4, RATE, 1)
    samples = np.concatenate([mono, -0.99 * mono], axis=1) + np.array(dc)
    assert mixed(samples).channel == 0


@pytest.mark.parametrize(
    "samples",
    [
        tracks(2),
        tracks(1).repeat(2, axis=1),
        tracks(2) * [1, 0],
        tracks(2) * [1, 1e-3],
        tracks(6) * [0, 0, 1, 0, 0, 0],
        tracks(6),
        tracks(8) * [1, 1, 0, 0, 0, 0, 0, 0],
        tracks(1).repeat(6, axis=1),
        tracks(2) + np.array([0.3, -0.3]),
        np.array([[0.5, -0.5]]).repeat(RATE, axis=0),
        np.zeros((RATE, 2)),
        tracks(1).repeat(2, axis=1) * [1, -0.3],
    ],
    ids=(
        "unrelated",
        "same",
        "one-silent",
        "one-quiet",
        "5.1-centre",
        "5.1-all",
        "7.1-front",
        "5.1-same",
        "dc",
        "dc-only",
        "silence",
        "partly",
    ),
)
def test_no_false_alarm(samples: np.ndarray) -> None:
    decoded = mixed(samples)
    assert decoded.channel is None
    np.testing.assert_allclose(decoded.segments[0].samples, samples.mean(axis=1), atol=1e-6)


def test_six_channels_of_which_pairs_cancel() -> None:
    mono = synth.music(4, RATE, 1)
    decoded = mixed(np.concatenate([0.5 * mono, -0.5 * mono, 0.9 * mono, -0.9 * mono, 0 * mono, 0 * mono], axis=1))
    assert decoded.channel in (2, 3)


def test_all_segments_are_judged_together() -> None:
    """One excerpt alone cancels; with the other, most of the energy stays."""
    mono = synth.music(12, RATE, 1)
    samples = np.concatenate([mono, np.where(np.arange(len(mono))[:, None] < 2 * RATE, -1, 1) * mono], axis=1)
    assert mixed(samples, [ExcerptSpec(0.0, 2.0)]).channel == 0
    assert mixed(samples, [ExcerptSpec(0.0, 2.0), ExcerptSpec(5.0, 2.0)]).channel is None


@pytest.mark.parametrize("kind", [".wav", ".flac", ".ogg", ".mp3", ".alac.m4a", ".m4a"])
def test_in_files_too(kind: str, tmp_path: Path) -> None:
    if kind in synth.AV_FORMATS:
        pytest.importorskip("av")
    samples = synth.antiphase(6, 44_100)
    samples[:, 1] *= 0.98
    path = synth.write(tmp_path / f"a{kind}", samples, 44_100)
    specs = [ExcerptSpec(0.5, 1.0), ExcerptSpec(4.0, 1.0)]
    decoded = Decoder().decode(path, specs, np.empty(3 * 44_100, np.float32))
    assert decoded.channel == 0
    for spec in specs:
        heard, start = decoded.excerpt(spec)
        expected = samples[start : start + len(heard), 0]
        assert np.dot(heard, expected) / np.sqrt(np.dot(heard, heard) * np.dot(expected, expected)) > 0.9
    path = synth.write(tmp_path / f"b{kind}", synth.music(3), 44_100)
    assert Decoder().decode(path, specs[:1], np.empty(3 * 44_100, np.float32)).channel is None
