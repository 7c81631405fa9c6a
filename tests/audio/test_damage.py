"""Damaged files: what can be heard is heard, at its place, and the damage is said; what cannot is ``corrupt``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synth
from edge_reclass.audio import Decoded, Decoder, ExcerptSpec
from edge_reclass.audio.decode_soundfile import SoundfileSource
from edge_reclass.audio.excerpt import Limits
from edge_reclass.audio.mono import MonoWriter
from edge_reclass.audio.reading import MAX_BAD_PACKETS, MIN_DECODED, attempt
from edge_reclass.errors import TrackError

SECONDS = 20.0
RATE = 44_100
FULL = [ExcerptSpec(seconds=None)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """clean(kind) → the bytes of a mono file of SECONDS."""
    folder = tmp_path_factory.mktemp("clean")
    kept: dict[str, bytes] = {}

    def get(kind: str) -> bytes:
        if kind not in kept:
            path, samples = folder / f"a{kind}", synth.music(SECONDS, RATE, 1)
            if kind == ".m4a":
                pytest.importorskip("av")
                synth.write_av(path, samples, RATE, "aac", "ipod", "fltp", {}, {"movflags": "faststart"})
            else:
                synth.write(path, samples, RATE)
            kept[kind] = path.read_bytes()
        return kept[kind]

    return get


@pytest.fixture(params=[True, False], ids=["pyav", "no-pyav"])
def pyav(request: pytest.FixtureRequest, remove_av: Callable[[], None]) -> bool:
    if request.param:
        pytest.importorskip("av")
    else:
        remove_av()
    return bool(request.param)


def decode(path: Path, data: bytes, specs: list[ExcerptSpec] = FULL) -> Decoded:
    path.write_bytes(data)
    return Decoder().decode(path, specs, np.empty(round((SECONDS + 2) * 48_000), np.float32))


def agreement(decoded: Decoded, reference: Decoded) -> float:
    """Share of tenths of a second that are as in the reference, at the same place to a few milliseconds."""
    heard, expected = (each.segments[0].samples for each in (decoded, reference))
    step, slack = RATE // 10, 3000
    same = total = 0
    for at in range(slack, min(len(heard), len(expected)) - step - slack, 7 * step):
        part = heard[at : at + step]
        near = expected[at - slack : at + step + slack]
        norm = np.sqrt(np.dot(part, part) * np.convolve(near**2, np.ones(step), "valid"))
        total += 1
        same += bool(np.max(np.correlate(near, part, "valid") / np.maximum(norm, 1e-9)) > 0.9)
    return same / total


@pytest.mark.parametrize("kind", [".flac", ".mp3"])
@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_one_lost_sector(kind: str, place: float, pyav: bool, clean: Any, tmp_path: Path) -> None:
    data = bytearray(clean(kind))
    reference = decode(tmp_path / f"r{kind}", bytes(data))
    at = round(len(data) * place)
    data[at : at + 4096] = bytes(4096)
    decoded = decode(tmp_path / f"a{kind}", bytes(data))
    assert decoded.damage is not None
    assert 0 < decoded.damage.missing < 0.04
    assert "cannot be decoded" in str(decoded.damage)
    assert agreement(decoded, reference) > 0.93
    # Elsewhere, nothing is wrong.
    assert decode(tmp_path / f"a{kind}", bytes(data), [ExcerptSpec(0.0 if place > 0.4 else 15.0, 2.0)]).damage is None


def test_lost_packets_of_an_m4a(clean: Any, tmp_path: Path) -> None:
    data = bytearray(clean(".m4a"))
    reference = decode(tmp_path / "r.m4a", bytes(data))
    at = len(data) // 2
    data[at : at + 4096] = bytes(4096)
    decoded = decode(tmp_path / "a.m4a", bytes(data))
    assert decoded.damage is not None
    assert 0 < decoded.damage.bad_packets < 0.03 * decoded.damage.packets
    assert 0 < decoded.damage.missing < 0.03
    assert len(decoded.segments[0].samples) == len(reference.segments[0].samples)
    assert agreement(decoded, reference) > 0.96


@pytest.mark.parametrize("kind", [".flac", ".mp3", ".m4a"])
@pytest.mark.parametrize("flips", [1, 3, 10])
def test_a_few_flipped_bits(kind: str, flips: int, clean: Any, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if kind == ".flac" and flips == 10 and int(av.__version__.split(".")[0]) < 14:
        pytest.skip("the FFmpeg of older PyAV loses the packets around a bad flac frame, too")
    data = bytearray(clean(kind))
    reference = decode(tmp_path / f"r{kind}", bytes(data))
    rng = np.random.default_rng(flips)
    for at in rng.integers(len(data) // 4, len(data) * 3 // 4, size=flips):
        data[at] ^= 1 << rng.integers(8)
    decoded = decode(tmp_path / f"a{kind}", bytes(data), [ExcerptSpec(0.0, 19.0)])
    assert agreement(decoded, reference) > 0.85


@pytest.mark.parametrize("flips", [1, 3, 10])
def test_a_few_flipped_bits_of_an_ogg(flips: int, clean: Any, tmp_path: Path) -> None:
    """Whole pages are dropped, as their checksums are wrong; what follows comes earlier, and is music all the same."""
    data = bytearray(clean(".ogg"))
    for at in np.random.default_rng(flips).integers(len(data) // 4, len(data) * 3 // 4, size=flips):
        data[at] ^= 16
    decoded = decode(tmp_path / "a.ogg", bytes(data), [ExcerptSpec(0.0, 8.0)])
    assert len(decoded.segments[0].samples) == 8 * RATE


@pytest.mark.parametrize("kind", [".flac", ".mp3", ".m4a"])
def test_too_much_is_corrupt_and_the_share_is_said(kind: str, pyav: bool, clean: Any, tmp_path: Path) -> None:
    if kind == ".m4a" and not pyav:
        pytest.skip("needs PyAV whole, too")
    data = bytearray(clean(kind))
    at = len(data) // 3
    data[at : at + len(data) // 4] = bytes(len(data) // 4)
    with pytest.raises(TrackError, match=r"only [67]\d% of the excerpt") as caught:
        decode(tmp_path / f"a{kind}", bytes(data))
    assert caught.value.status == "corrupt"
    assert (MIN_DECODED, MAX_BAD_PACKETS) == (0.9, 0.1)


def test_flac_with_a_seek_table_that_leads_astray(pyav: bool, clean: Any, tmp_path: Path) -> None:
    data = clean(".flac")
    reference = decode(tmp_path / "r.flac", data)
    info = bytes([data[4] & 0x7F]) + data[5:42]
    places = [(4096 * i * 20, 7 + 13 * i, 4096) for i in range(10)]
    table = b"".join(a.to_bytes(8, "big") + b.to_bytes(8, "big") + c.to_bytes(2, "big") for a, b, c in places)
    only_info = data[4] & 0x80
    body = data[42:]
    bad = b"fLaC" + info + bytes([0x03 | only_info]) + len(table).to_bytes(3, "big") + table + body
    decoded = decode(tmp_path / "a.flac", bad, [ExcerptSpec(12.0, 5.0)])
    np.testing.assert_array_equal(decoded.segments[0].samples, reference.segments[0].samples[12 * RATE : 17 * RATE])


@pytest.mark.parametrize("claim", [2.0, 10.0])
def test_flac_that_claims_more_than_there_is(claim: float, pyav: bool, clean: Any, tmp_path: Path) -> None:
    data = bytearray(clean(".flac"))
    total = round(claim * SECONDS * RATE)
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = (total & 0xFFFF_FFFF).to_bytes(4, "big")
    for specs in ([ExcerptSpec("center", 10.0)], [ExcerptSpec(1e4, 10.0)]):
        decoded = decode(tmp_path / "a.flac", bytes(data), specs)
        assert abs(decoded.total - SECONDS * RATE) <= 4096
        assert decoded.damage is not None
        assert decoded.damage.declared == pytest.approx(claim * SECONDS)


def test_a_file_that_ends_early_is_read_again_from_its_beginning(clean: Any, tmp_path: Path) -> None:
    """libsndfile 1.2.0 gives no error where a flac is cut off; reading then goes on from the beginning, not the end."""
    (tmp_path / "a.wav").write_bytes(clean(".wav"))
    out, writer = np.empty(30 * RATE, np.float32), MonoWriter()
    with (tmp_path / "a.wav").open("rb") as file:
        source = SoundfileSource(file.fileno())
        heard = []
        for ask in (lambda: source.read(0, writer), lambda: source.measure(writer), lambda: source.read(0, writer)):
            writer.begin(out, 30 * RATE, RATE, RATE)
            assert ask() == SECONDS * RATE
            heard.append(len(writer.finish()[0]))
        source.close()
    assert heard[0] == heard[2] == SECONDS * RATE


def test_a_file_that_seems_to_end_earlier_each_time_is_given_up() -> None:
    class Shrinking:
        rate, channels, packets, bad_packets, error = RATE, 1, 0, 0, None
        total = 60 * RATE
        reads = 0

        def read(self, start: int, writer: MonoWriter) -> int:
            self.reads += 1
            self.total -= RATE
            writer.append(np.ones((self.total - RATE // 2 - start, 1), np.float32))
            return start + writer.done

        def measure(self, writer: MonoWriter) -> int:
            return self.total

    source = Shrinking()
    out = np.empty(61 * RATE, np.float32)
    done = attempt([source], FULL, out, MonoWriter(), Limits(), locate_again=True)
    assert source.reads < 50
    assert done.got < done.wanted


def test_damage_in_words() -> None:
    from edge_reclass.audio import Damage

    assert str(Damage(2, 470, 0.004)) == "0.4% of the excerpt cannot be decoded; 2 of 470 packets are damaged"
    assert str(Damage(0, 10, 0.0, 33.0)) == "the file ends before the 33.0 s that it declares"


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("7.1", 8), ("hexadecagonal", 16)])
def test_many_planes(layout: str, channels: int) -> None:
    """PyAV 18 crashes when it makes an array of 8 planes or more; damaged AAC may claim 32 channels."""
    av = pytest.importorskip("av")
    from edge_reclass.audio.decode_av import _samples

    packed = av.AudioFrame.from_ndarray(np.arange(64 * channels, dtype=np.float32)[None], format="flt", layout=layout)
    packed.sample_rate = 48_000
    (planar,) = av.AudioResampler(format="fltp", layout=layout, rate=48_000).resample(packed)
    expected = np.arange(64 * channels, dtype=np.float32).reshape(64, channels)
    np.testing.assert_array_equal(_samples(planar), expected)
