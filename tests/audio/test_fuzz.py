"""Random bytes, truncations and bit flips of real files: a Decoded or a TrackError, nothing else, nothing printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import synth
from edge_reclass.audio import Decoder, ExcerptSpec
from edge_reclass.errors import FAILURE_STATUSES, TrackError

KINDS = [*synth.SOUNDFILE_FORMATS, *synth.AV_FORMATS, ".flac.ogg", ".mp2", ".aiff", ".caf", ".w64", ".au"]
SPECS = [[ExcerptSpec("center", 0.5)], [ExcerptSpec(seconds=None)], [ExcerptSpec(1.0, 0.2), ExcerptSpec(1e5, 0.1)]]
FUZZ = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def samples_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("fuzz")
    cache: dict[str, bytes] = {}

    def get(kind: str) -> bytes:
        if kind not in cache:
            if kind in synth.AV_FORMATS or kind in (".flac.ogg", ".mp2"):
                pytest.importorskip("av")
            cache[kind] = synth.write(folder / f"a{kind}", synth.music(1.5, 48_000), 48_000).read_bytes()
        return cache[kind]

    return get


def check(path: Path, data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(data)
    out = np.full(3 * 48_000, np.nan, dtype=np.float32)
    decoder = Decoder()
    for specs in SPECS:
        try:
            decoded = decoder.decode(path, specs, out)
        except TrackError as error:
            assert error.status in FAILURE_STATUSES
            assert str(error)
        else:
            for part in decoded.segments:
                assert 1 <= len(part.samples) <= decoded.total - part.start
                assert np.isfinite(part.samples).all()
            assert 4_000 <= decoded.rate <= 192_000
            assert decoded.damage is None or 0 <= decoded.damage.missing <= 0.1
            for spec in specs:
                assert len(decoded.excerpt(spec)[0]) > 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(draw=st.data())
def test_truncations_and_flips(
    kind: str,
    samples_of: Callable[[str], bytes],
    tmp_path: Path,
    draw: st.DataObject,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = bytearray(samples_of(kind))
    # Most of what matters stands in the first few hundred bytes, or the last (m4a).
    near = st.one_of(st.integers(0, 400), st.integers(0, len(data) - 1), st.integers(len(data) - 800, len(data) - 1))
    for at, value in draw.draw(st.lists(st.tuples(near, st.integers(0, 255)), max_size=12)):
        data[at % len(data)] = value
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data))) :]
    check(tmp_path / f"a{kind}", bytes(data), capfd)


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(noise=st.binary(min_size=0, max_size=4000), keep=st.integers(0, 64))
def test_random_bytes_behind_a_real_beginning(
    kind: str,
    samples_of: Callable[[str], bytes],
    tmp_path: Path,
    noise: bytes,
    keep: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    check(tmp_path / f"a{kind}", samples_of(kind)[:keep] + noise, capfd)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.txt"])
@FUZZ
@given(noise=st.binary(max_size=5000))
def test_random_bytes(name: str, tmp_path: Path, noise: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    check(tmp_path / name, noise, capfd)


@pytest.mark.parametrize("kind", [".mp3", ".aac", ".ogg", ".flac"])
@FUZZ
@given(draw=st.data())
def test_spliced(
    kind: str,
    samples_of: Callable[[str], bytes],
    tmp_path: Path,
    draw: st.DataObject,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Pieces left out, doubled and moved, as a bad disk or a cut does it; streams of two formats in one file."""
    other = samples_of(draw.draw(st.sampled_from([".mp3", ".aac", ".ogg", ".flac"])))
    data = samples_of(kind)
    a, b, c = (draw.draw(st.integers(0, len(data))) for _ in range(3))
    check(tmp_path / f"a{kind}", data[:a] + other[:b] + data[c:], capfd)
