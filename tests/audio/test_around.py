"""What lies around the audio: tags of every kind, joined and chained files, headers that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import synth
from edge_reclass.audio import Decoded, Decoder, ExcerptSpec
from edge_reclass.audio.mpeg import parse_header, walk

FULL = [ExcerptSpec(seconds=None)]
RATE = 44_100
PICTURE = b"\xff\xd8\xff\xe0" + np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
"""Of its bytes, hundreds look like the beginning of an MPEG frame."""


def id3v2(body: bytes = PICTURE) -> bytes:
    return b"ID3\x03\0\0" + bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0)) + body


def ape(body: bytes = PICTURE, version: int = 2000, header: bool = True) -> bytes:
    def part(flags: int) -> bytes:
        numbers = (version, len(body) + 32, 1, flags)
        return b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(8)

    top = 0x8000_0000 if header else 0
    return (part(top | 0x2000_0000) if header else b"") + body + part(top)


def lyrics(text: bytes = b"\xff\xfb\x90\x64 la la " * 500) -> bytes:
    body = b"LYRICSBEGIN" + b"LYR%05d" % len(text) + text
    return body + b"%06d" % len(body) + b"LYRICS200"


ID3V1 = b"TAG" + bytes(125)
PNG = b"\x89PNG\r\n\x1a\n" + PICTURE


@pytest.fixture(scope="module")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """mp3(seconds, seed, rate) → a mono mp3 with a Xing or Info tag."""
    folder = tmp_path_factory.mktemp("mp3")

    def make(seconds: float = 6.0, seed: int = 0, rate: int = RATE, channels: int = 1) -> bytes:
        path = folder / f"{seconds}-{seed}-{rate}-{channels}.mp3"
        if not path.exists():
            synth.write(path, synth.music(seconds, rate, channels, seed), rate)
        return path.read_bytes()

    return make


def decode(path: Path, data: bytes, specs: list[ExcerptSpec] = FULL) -> Decoded:
    path.write_bytes(data)
    return Decoder().decode(path, specs, np.empty(40 * 48_000, np.float32))


def frame_places(data: bytes) -> list[int]:
    """Where the frames of an mp3 without damage lie, the first one's tag included."""
    places, at = [], 0
    while (header := parse_header(data[at : at + 4])) is not None:
        places.append(at)
        at += header.size
    return places


def alike(heard: np.ndarray, expected: np.ndarray, slack: int = 3000) -> bool:
    """True if the pieces of a second are all there, in their places to an encoder's delay."""
    step = RATE // 2
    for at in range(slack, min(len(heard), len(expected)) - step - slack, step):
        part, near = heard[at : at + step], expected[at - slack : at + step + slack]
        product = np.fft.irfft(np.fft.rfft(near, 1 << 16) * np.conj(np.fft.rfft(part, 1 << 16)))[: 2 * slack + 1]
        there = near[int(np.argmax(product)) :][:step]
        if np.dot(there, part) < 0.95 * np.sqrt(np.dot(part, part) * np.dot(there, there)):
            return False
    return True


TAGS = {
    "id3v1": ID3V1, "id3v2": id3v2(), "apev2": ape(), "apev1": ape(b"x" * 500, 1000, header=False), "png": PNG,
    "lyrics": lyrics() + ID3V1, "all": ape() + lyrics() + ID3V1, "id3v2 twice": id3v2() + id3v2(b"\0" * 70_000),
}  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["front", "middle", "end"])
@pytest.mark.parametrize("xing", [True, False])
def test_tags_are_no_audio(tag: str, place: str, xing: bool, mp3: Callable[..., bytes], tmp_path: Path) -> None:
    if place == "front" and tag in ("png", "lyrics", "all", "apev1"):
        pytest.skip("nobody puts it there")
    if place == "middle" and tag == "png":
        pytest.skip("without a size of its own, it cannot be told from damage")
    data = mp3()
    frames = frame_places(data)
    if not xing:
        data = data[frames[1] :]
        frames = [at - frames[1] for at in frames[1:]]
    clean = decode(tmp_path / "c.mp3", data)
    at = {"front": 0, "middle": frames[len(frames) // 2], "end": len(data)}[place]
    tagged = decode(tmp_path / "a.mp3", data[:at] + TAGS[tag] + data[at:])
    assert abs(tagged.total - clean.total) <= 2 * 1152
    assert alike(tagged.segments[0].samples, clean.segments[0].samples)
    assert tagged.damage is None


@pytest.mark.parametrize("claim", [0, 1, 100, 3000])
def test_xing_that_does_not_fit(claim: int, mp3: Callable[..., bytes], tmp_path: Path) -> None:
    data = bytearray(mp3())
    clean = decode(tmp_path / "c.mp3", bytes(data))
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert data[at + 7] & 1
    data[at + 8 : at + 12] = claim.to_bytes(4, "big")
    # As of a file that was cut off: the number of bytes is as wrong as that of frames.
    data[at + 12 : at + 16] = (claim * 400).to_bytes(4, "big")
    decoded = decode(tmp_path / "a.mp3", bytes(data))
    assert abs(decoded.total - clean.total) <= 2 * 1152
    assert alike(decoded.segments[0].samples, clean.segments[0].samples)


def test_joined_files_are_one(mp3: Callable[..., bytes], tmp_path: Path) -> None:
    parts = [mp3(4.0, seed) for seed in (1, 2, 3)]
    clean = [decode(tmp_path / "c.mp3", part).segments[0].samples.copy() for part in parts]
    joined = decode(tmp_path / "a.mp3", b"".join(part + ID3V1 for part in parts))
    assert joined.total == pytest.approx(12 * RATE, abs=3 * 3000)
    for i, part in enumerate(clean):
        assert alike(joined.segments[0].samples[i * len(part) :][: len(part)], part, slack=8000)


def test_joined_files_of_two_rates(mp3: Callable[..., bytes], tmp_path: Path) -> None:
    decoded = decode(tmp_path / "a.mp3", mp3(6.0, 1, 48_000) + mp3(4.0, 2, 32_000) + mp3(4.0, 2, 24_000))
    assert decoded.rate == 48_000
    assert decoded.total == pytest.approx(14 * 48_000, rel=0.02)
    assert (np.abs(decoded.segments[0].samples[10 * 48_000 : 13 * 48_000]) > 1e-3).mean() > 0.9


def test_walk_counts_what_there_is(mp3: Callable[..., bytes], tmp_path: Path) -> None:
    data = mp3()
    frames = frame_places(data)
    path = tmp_path / "a.mp3"
    path.write_bytes(data[: frames[50]] + bytes(2 * (frames[52] - frames[50])) + data[frames[54] :])
    with path.open("rb") as file:
        (group,) = walk(file.fileno())
    assert [run.count for run in group.runs] == [49, len(frames) - 54]
    assert group.runs[1].lost == 4
    assert sum(n for _, n in group.lost(0, 1000)) == 4
    assert group.lost(50, 2) == [(50, 2)]
    assert group.count == len(frames) - 1


@pytest.mark.parametrize("kind", [".ogg", ".opus"])
def test_chained_links_are_read_to_the_end(kind: str, tmp_path: Path) -> None:
    pieces = []
    for seed, rate, channels in ((1, 48_000, 1), (2, 48_000, 2), (3, 24_000, 1)):
        path = synth.write(tmp_path / f"p{seed}{kind}", synth.music(4.0, rate, channels, seed), rate)
        pieces.append((path.read_bytes(), Decoder().decode(path, FULL, np.empty(10 * 48_000, np.float32)).total / rate))
    for chain in (pieces, pieces[:1] + pieces[:1], [pieces[0]] * 4):
        decoded = decode(tmp_path / f"a{kind}", b"".join(data for data, _ in chain))
        assert decoded.total / decoded.rate == pytest.approx(sum(seconds for _, seconds in chain), abs=0.05)
        assert len(decoded.segments[0].samples) == decoded.total
        first, _ = soundfile.read(tmp_path / f"p1{kind}", dtype="float32")
        heard = decoded.segments[0].samples
        np.testing.assert_allclose(heard[: len(first)], first, atol=1e-6)
        quiet = np.abs(heard).reshape(-1, 100 if len(heard) % 100 == 0 else 1).max(axis=1) < 1e-4
        assert quiet.mean() < 0.05
    part = decode(tmp_path / f"a{kind}", b"".join(data for data, _ in pieces), [ExcerptSpec(3.0, 3.0)])
    assert part.segments[0].start == 3 * part.rate
    assert len(part.segments[0].samples) == 3 * part.rate


@pytest.mark.parametrize("kind", [".ogg", ".opus", ".flac", ".wav", ".aiff", ".w64", ".caf"])
def test_tags_in_front_of_other_containers(kind: str, tmp_path: Path) -> None:
    path = synth.write(tmp_path / f"c{kind}", synth.music(3.0, 48_000), 48_000)
    clean = Decoder().decode(path, FULL, np.empty(10 * 48_000, np.float32)).segments[0].samples.copy()
    for tag in (id3v2(b"\0" * 3000), ape(b"y" * 100)):
        decoded = decode(tmp_path / f"a{kind}", tag + path.read_bytes())
        np.testing.assert_array_equal(decoded.segments[0].samples, clean)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_streamed_wav(subtype: str, tmp_path: Path) -> None:
    """Written to a pipe: the sizes are 0, as nobody could go back to set them."""
    samples = synth.music(3.0)
    data = bytearray(synth.write(tmp_path / "c.wav", samples, RATE, subtype=subtype).read_bytes())
    at = data.find(b"data") + 4
    end = at + 4 + int.from_bytes(data[at : at + 4], "little")
    data[4:8] = data[at : at + 4] = bytes(4)
    decoded = decode(tmp_path / "a.wav", bytes(data[:end]))
    np.testing.assert_allclose(decoded.segments[0].samples, samples.mean(axis=1), atol=2**-14)
    specs = [ExcerptSpec("center", 1.0)]
    assert len(decode(tmp_path / "a.wav", bytes(data[:end]), specs).segments[0].samples) == RATE
