"""Synthesised audio for tests: signals, and files of every format the decoder takes.

Signals are float32 [n, channels], reproducible from a seed, and never longer than asked for. ``write`` picks
codec and container by the suffix; m4a, aac, alac and wma are written by PyAV, the others by soundfile.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

Signal = NDArray[np.float32]

SOUNDFILE_FORMATS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""Suffixes that ``write`` hands to soundfile, one of each codec."""

AV_FORMATS = (".m4a", ".alac.m4a", ".aac", ".wma")
"""Suffixes that ``write`` hands to PyAV."""

LOSSLESS = (".wav", ".flac", ".alac.m4a")

_SOUNDFILE_KINDS: dict[str, dict[str, str]] = {
    ".wav": {"format": "WAV", "subtype": "PCM_16"},
    ".flac": {"format": "FLAC", "subtype": "PCM_16"},
    ".ogg": {"format": "OGG", "subtype": "VORBIS"},
    ".opus": {"format": "OGG", "subtype": "OPUS"},
    ".mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    ".aiff": {"format": "AIFF", "subtype": "PCM_16"},
    ".caf": {"format": "CAF", "subtype": "PCM_16"},
    ".w64": {"format": "W64", "subtype": "PCM_16"},
    ".au": {"format": "AU", "subtype": "PCM_16"},
}
# Encoder, muxer, sample format. Noise substitution off: its noise differs from decode to decode.
_AV_KINDS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    ".m4a": ("aac", "ipod", "fltp", {"aac_pns": "0"}),
    ".alac.m4a": ("alac", "ipod", "s16p", {}),
    ".aac": ("aac", "adts", "fltp", {"aac_pns": "0"}),
    ".wma": ("wmav2", "asf", "fltp", {}),
    ".mp2": ("mp2", "mp2", "s16", {}),
    ".flac.ogg": ("flac", "ogg", "s16", {}),
}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def music(seconds: float, rate: int = 44_100, channels: int = 2, seed: int = 0) -> Signal:
    """Chords with overtones that change twice a second, and some noise; peak about 0.6; no two spots alike."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    signal = np.empty((n, channels), dtype=np.float32)
    step = max(1, rate // 2)
    for begin in range(0, n, step):
        t = np.arange(begin, min(begin + step, n)) / rate
        notes = 110.0 * 2 ** (rng.integers(0, 36, size=3) / 12)
        chord = np.zeros_like(t)
        for note in notes:
            for overtone in (1, 2, 3):
                if note * overtone < rate / 2:
                    chord += np.sin(2 * np.pi * note * overtone * t) / overtone
        pan = rng.uniform(0.5, 1.0, size=channels)
        noise = 0.02 * rng.standard_normal((len(t), channels))
        signal[begin : begin + len(t)] = 0.1 * chord[:, None] * pan + noise
    return signal


def silence(seconds: float, rate: int = 44_100, channels: int = 2) -> Signal:
    """All zeros."""
    return np.zeros((round(seconds * rate), channels), dtype=np.float32)


def antiphase(seconds: float, rate: int = 44_100, seed: int = 0) -> Signal:
    """Stereo whose channels cancel: left = -right."""
    mono = music(seconds, rate, 1, seed)
    return np.concatenate([mono, -mono], axis=1)


def kind_of(path: str | Path) -> str:
    """The key of the writer's tables that a path's suffixes name: '.alac.m4a' before '.m4a'."""
    name = Path(path).name.lower()
    matches = [kind for kind in (*_SOUNDFILE_KINDS, *_AV_KINDS) if name.endswith(kind)]
    if not matches:
        raise ValueError(f"no writer for {name}")
    return max(matches, key=len)


def write(path: str | Path, samples: Signal, rate: int, subtype: str | None = None) -> Path:
    """Write samples [n] or [n, channels] as the format of the path's suffix; returns the path."""
    path = Path(path)
    kind = kind_of(path)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if kind in _AV_KINDS:
        codec, container, sample_format, options = _AV_KINDS[kind]
        return write_av(path, samples, rate, codec, container, sample_format, options)
    how = dict(_SOUNDFILE_KINDS[kind])
    how["subtype"] = subtype or how["subtype"]
    with path.open("wb") as stream, soundfile.SoundFile(stream, "w", rate, samples.shape[1], **how) as file:
        # In blocks: libsndfile 1.2 is known to overflow its stack on a long vorbis written whole.
        for begin in range(0, len(samples), 65_536):
            file.write(samples[begin : begin + 65_536])
    return path


def write_av(
    path: str | Path,
    samples: Signal,
    rate: int,
    codec: str,
    container: str,
    sample_format: str,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write samples [n, channels] with an encoder and a muxer of FFmpeg, by their names there."""
    import av

    layout = _LAYOUTS[samples.shape[1]]
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream: Any = output.add_stream(
            codec, rate=rate, layout=layout, format=sample_format, bit_rate=128_000, options=options or {}
        )
        converter = av.AudioResampler(format=sample_format, layout=layout, rate=rate)
        for begin in range(0, len(samples), 16_384):
            block = np.ascontiguousarray(samples[begin : begin + 16_384].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate = rate
            frame.pts = begin
            for part in converter.resample(frame):
                output.mux(stream.encode(part))
        for part in converter.resample(None):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return Path(path)


def dsf(seconds: float, rate: int = 2_822_400, tone: float = 440.0) -> bytes:
    """A mono DSF file of a sine, by a first-order modulator."""
    n = round(seconds * rate) // 32_768 * 32_768
    ramp = np.floor(np.cumsum(0.5 + 0.4 * np.sin(2 * np.pi * tone * np.arange(n) / rate)))
    bits = np.diff(ramp, prepend=0.0).astype(np.uint8)
    data = np.packbits(bits, bitorder="little").tobytes()
    fmt = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, rate, 1, n, 4096, 0)
    chunk = b"data" + struct.pack("<Q", 12 + len(data)) + data
    return b"DSD " + struct.pack("<QQQ", 28, 28 + len(fmt) + len(chunk), 0) + fmt + chunk


def wav_bytes(
    data: bytes = b"",
    rate: int = 44_100,
    channels: int = 2,
    bits: int = 16,
    format_tag: int = 1,
    declared: int | None = None,
) -> bytes:
    """A wav file from its parts; ``declared`` is the data chunk's length where it shall not be the truth."""
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", format_tag, channels, rate, (rate * frame) & 0xFFFFFFFF, frame & 0xFFFF, bits)
    size = len(data) if declared is None else declared
    riff = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(riff)) + riff
