"""Reference vectors: what an encoder answers to inputs that any machine can make again from a seed.

A bundle keeps the seed, a checksum of every input and the expected embeddings, and no audio but what its maker
added on purpose, which stands in the file as 16-bit samples. The made inputs lie on the grid of 16-bit samples
too, so that differences in the last bit of a platform's sine disappear by rounding, and the random numbers come
from PCG64's raw stream, which numpy promises not to change.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle.limits import MAX_REFERENCE_BYTES, MAX_REFERENCE_SAMPLES
from edge_reclass.errors import BundleError

FORMAT = 1
CASES = ("harmonics", "chord", "chirp", "drums", "noise", "quiet_noise", "silence_edges", "full_scale")
"""Names of the inputs, in the order of their rows."""

_STEPS = 32_768  # 16-bit samples: one step is 2^-15
_PARTIALS = 24
_MIN_RATE, _MAX_RATE = 1_000, 192_000  # at the lowest, a tone still has its fundamental
_FIX = "restore the bundle from its source or export it again"


@dataclass(frozen=True)
class ReferenceVectors:
    """Expected embeddings float32[cases, dim] of the inputs that ``rate``, ``samples`` and ``seed`` give.

    ``extra_inputs`` int16[extra cases, samples] are called ``extra_names``; their embeddings follow the others.
    """

    rate: int
    samples: int
    seed: int
    embedding: NDArray[np.float32]
    extra_inputs: NDArray[np.int16] | None = None
    extra_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What the inputs are called, in the order of their rows."""
        return CASES + self.extra_names

    def inputs(self) -> NDArray[np.float32]:
        """The inputs, float32[cases, samples] in [-1, 1)."""
        made = synthesise(self.rate, self.samples, self.seed)
        if self.extra_inputs is None:
            return made
        return np.concatenate([made, self.extra_inputs.astype(np.float32) / _STEPS])

    def to_bytes(self) -> bytes:
        """The vectors as an .npz file; the same vectors give the same bytes."""
        stream = io.BytesIO()
        extra: dict[str, Any] = {}
        if self.extra_inputs is not None:
            extra = {"own": self.extra_inputs, "own_names": np.array(self.extra_names)}
        np.savez(
            stream,
            format=np.int64(FORMAT),
            rate=np.int64(self.rate),
            samples=np.int64(self.samples),
            seed=np.int64(self.seed),
            cases=np.array(CASES),
            checksums=checksums(synthesise(self.rate, self.samples, self.seed)),
            embedding=np.asarray(self.embedding, np.float32),
            **extra,
        )
        return stream.getvalue()


@dataclass(frozen=True)
class Agreement:
    """How near ``got`` is to ``expected``: the worst row's figures.

    ``cosine``: the smallest cosine similarity of a row. ``relative``: the largest
    ‖got - expected‖ / ‖expected‖ of a row. ``max_abs``: the largest absolute difference of a value.
    """

    cosine: float
    relative: float
    max_abs: float


def agreement(expected: NDArray[np.floating], got: NDArray[np.floating]) -> Agreement:
    """Compare two arrays [rows, dim] in float64. NaN anywhere gives a cosine of -1 and infinite errors.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    if expected.shape != got.shape or expected.ndim != 2 or expected.size == 0:
        raise ValueError(f"expected two equal shapes [rows, dim], got {expected.shape} and {got.shape}")
    want, have = expected.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(want).all() and np.isfinite(have).all()):
        return Agreement(-1.0, float("inf"), float("inf"))
    difference = np.linalg.norm(have - want, axis=1)
    want_norm, have_norm = np.linalg.norm(want, axis=1), np.linalg.norm(have, axis=1)
    product = want_norm * have_norm
    # A row of zeros has no direction: it agrees with another row of zeros only.
    both_zero = (want_norm == 0.0) & (have_norm == 0.0)
    cosine = np.where(both_zero, 1.0, (want * have).sum(axis=1) / np.where(product > 0.0, product, 1.0))
    relative = np.divide(difference, want_norm, out=np.full_like(difference, np.inf), where=want_norm > 0.0)
    relative = np.where(both_zero, 0.0, relative)
    return Agreement(float(cosine.min()), float(relative.max()), float(np.abs(have - want).max()))


def load_reference(path: Path, content: bytes | None = None) -> ReferenceVectors:
    """Read an .npz of reference vectors and check that this machine makes the same inputs.

    ``content`` are the file's bytes where they have been read (and compared with a hash) already.

    Raises:
        BundleError: the file cannot be read, is no such file, or its inputs cannot be made again here.
    """
    if content is None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror or error}); {_FIX}") from error
    arrays = read_arrays(content, path)
    try:
        version, rate, samples, seed = (int(arrays[name]) for name in ("format", "rate", "samples", "seed"))
        cases, expected, embedding = arrays["cases"], arrays["checksums"], arrays["embedding"]
        extra, extra_names = arrays.get("own"), tuple(str(name) for name in arrays.get("own_names", np.array([])))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise BundleError(f"{path}: no reference vectors ({error}); {_FIX}") from error
    if version != FORMAT or tuple(cases.tolist()) != CASES:
        raise BundleError(
            f"{path}: reference format {version} with {cases.tolist()}, expected {FORMAT} with {list(CASES)};"
            " update edge-reclass or export the bundle again"
        )
    rows = len(CASES) + len(extra_names)
    if embedding.dtype != np.float32 or embedding.ndim != 2 or len(embedding) != rows:
        raise BundleError(
            f"{path}: expected float32[{rows}, dim] embeddings, got {embedding.dtype}{list(embedding.shape)}; {_FIX}"
        )
    require_makeable(path, rate, samples, seed)
    if extra is not None and (extra.dtype != np.int16 or extra.shape != (len(extra_names), samples)):
        raise BundleError(
            f"{path}: expected extra inputs int16[{len(extra_names)}, {samples}],"
            f" got {extra.dtype}{list(extra.shape)}; {_FIX}"
        )
    reference = ReferenceVectors(rate, samples, seed, embedding, extra, extra_names)
    made = checksums(synthesise(rate, samples, seed))
    if expected.shape != made.shape or (expected != made).any():
        wrong = [name for name, a, b in zip(CASES, expected.tolist(), made.tolist(), strict=False) if a != b]
        raise BundleError(
            f"{path}: from seed {seed} this machine makes other inputs than the exporting one did"
            f" ({', '.join(wrong)}); export the bundle again here"
        )
    return reference


def read_arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file that lies in memory; ``path`` is for the messages.

    Nothing is unpickled, and what the headers of zip and arrays claim is looked at before memory is taken for it.

    Raises:
        BundleError: it is no such file, or larger than ``MAX_REFERENCE_BYTES`` when unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if (size := sum(member.file_size for member in members)) > MAX_REFERENCE_BYTES:
                raise ValueError(f"expected at most {MAX_REFERENCE_BYTES} bytes unpacked, got {size}")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    # zipfile, zlib and numpy raise a dozen classes, MemoryError and RecursionError among them.
    except Exception as error:
        raise BundleError(f"{path}: no reference vectors ({type(error).__name__}: {error}); {_FIX}") from error


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename}: array format {version}, expected 1.0 or 2.0")
        shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename}: {dtype} of shape {shape} in {member.file_size} bytes")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def require_makeable(path: Path, rate: int, samples: int, seed: int) -> None:
    """Raise ``BundleError`` where :func:`synthesise` would be asked for what nobody can mean."""
    if not (_MIN_RATE <= rate <= _MAX_RATE and 1 <= samples <= MAX_REFERENCE_SAMPLES and 0 <= seed < 2**63):
        raise BundleError(
            f"{path}: rate {rate}, samples {samples} and seed {seed}, expected a rate from {_MIN_RATE} to {_MAX_RATE},"
            f" 1 to {MAX_REFERENCE_SAMPLES} samples, and a seed from 0 to 2^63 - 1; {_FIX}"
        )


def synthesise(rate: int, samples: int, seed: int) -> NDArray[np.float32]:
    """The inputs of ``CASES``, float32[cases, samples] in [-1, 1), every value a multiple of 2^-15."""
    source = np.random.PCG64(seed)
    time = np.arange(samples) / rate
    duration = samples / rate
    stack = _harmonics(source, time, rate)
    chord = np.asarray(sum(_harmonics(source, time, rate, ratio) for ratio in (1.0, 1.2, 1.5)))
    tremolo = 0.6 + 0.4 * _sine(4.0 * time)
    chirp = _sine(30.0 * time + (0.45 * rate - 30.0) * time * time / (2.0 * duration))
    middle = (time >= duration / 3.0) & (time < 2.0 * duration / 3.0)
    rows = {
        "harmonics": 0.5 * stack,
        "chord": 0.2 * chord * tremolo,
        "chirp": 0.4 * chirp,
        "drums": _drums(source, time),
        "noise": 0.25 * _noise(source, samples),
        "quiet_noise": 1e-3 * _noise(source, samples),
        "silence_edges": np.where(middle, 0.5 * stack, 0.0),
        "full_scale": 8.0 * stack,
    }
    grid = np.rint(np.stack([rows[name] for name in CASES]) * _STEPS)
    inputs: NDArray[np.float32] = (np.clip(grid, -_STEPS, _STEPS - 1) / _STEPS).astype(np.float32)
    return inputs


def checksums(inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """A checksum of every row of inputs float32[cases, samples] on the grid of 16 bits."""
    return np.array([zlib.crc32((row * _STEPS).astype("<i2").tobytes()) for row in inputs], np.int64)


def _uniform(source: np.random.PCG64, count: int) -> NDArray[np.float64]:
    """Uniform on [0, 1) with 53 bits, straight from the generator's raw 64-bit stream."""
    raw = np.asarray(source.random_raw(count), np.uint64)
    fractions: NDArray[np.float64] = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return fractions


def _noise(source: np.random.PCG64, count: int) -> NDArray[np.float64]:
    return 2.0 * _uniform(source, count) - 1.0


def _sine(cycles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sine of a phase in cycles; whole cycles are taken off first, for small arguments on every platform."""
    return np.sin(2.0 * np.pi * (cycles - np.floor(cycles)))


def _harmonics(
    source: np.random.PCG64, time: NDArray[np.float64], rate: int, ratio: float = 1.0
) -> NDArray[np.float64]:
    """Partials of one tone with amplitudes 1/k and random phases, scaled to stay within [-1, 1]."""
    draws = _uniform(source, 1 + _PARTIALS)
    fundamental = ratio * (110.0 + 110.0 * draws[0])
    numbers = [k for k in range(1, _PARTIALS + 1) if k * fundamental < 0.45 * rate]
    tone = np.zeros_like(time)
    for k in numbers:
        tone += _sine(k * fundamental * time + draws[k]) / k
    return tone / sum(1.0 / k for k in numbers)


def _drums(source: np.random.PCG64, time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four beats a second: a decaying 60 Hz tone and a decaying burst of noise in turn."""
    beat = np.floor(time * 4.0)
    since = time - beat / 4.0
    kick = 0.8 * _sine(60.0 * since) * np.exp(-since / 0.08)
    snare = 0.5 * _noise(source, len(time)) * np.exp(-since / 0.03)
    return np.where(beat % 2.0 == 0.0, kick, snare)
