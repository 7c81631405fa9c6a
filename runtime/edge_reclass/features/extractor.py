"""The object that turns excerpts into the 518 features with a workspace that is sized once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from edge_reclass.features.chroma import (
    CENS_REACH,
    PITCH_CLASSES,
    CensSmoother,
    chroma_filters,
    normalise_peak,
    project_power,
    quantise,
    tonnetz,
    tonnetz_basis,
)
from edge_reclass.features.cqt import ConstantQ, cqt_frame_count, early_halvings
from edge_reclass.features.framing import BINS, F32, F64, frame_count
from edge_reclass.features.layout import EARLY_ROWS, FEATURE_COUNT, LATE_ROWS, ROWS, column_order, row_slices
from edge_reclass.features.mel import MEL_BANDS, cosine_transform
from edge_reclass.features.spectral import (
    BLOCK,
    CONTRAST_BANDS,
    RateTables,
    SpectralBlock,
    SpectralOutput,
    StaticTables,
)
from edge_reclass.features.statistics import SCRATCH_VALUES, row_statistics
from edge_reclass.features.tuning import PEAKS_PER_FRAME, PeakStore

LOWEST_NATIVE_RATE: Final = 8500
"""Rate in Hz below which the constant-Q transform's highest filter does not fit under Nyquist."""
HIGHEST_RATE: Final = 768000
"""Highest rate in Hz that the workspace can be made for."""
SUBSTITUTE_RATE: Final = 16000
"""Rate in Hz that excerpts below LOWEST_NATIVE_RATE are resampled to."""

_KEPT_FRAMES: Final = 4096
"""Frames whose power spectra are kept until the tuning is known (16 MiB); longer excerpts are transformed twice."""
_PROJECTED: Final = 128
"""Kept power spectra that are projected to chroma at a time."""
_CHUNK: Final = 2048
"""Frames that the steps after the spectrogram take at a time."""
_CACHED_RATES: Final = 8
_CACHED_TUNINGS: Final = 128
"""More than the 101 values that an estimate can take: short windows of one track differ in theirs."""
_RESAMPLE_CHUNK: Final = 1 << 16

_DECIBEL: Final = np.float32(10 / math.log(10))
_FLOOR: Final = np.float32(1e-10)
"""power_to_db: smallest power that differs from zero."""
_RANGE: Final = np.float32(1e-8)
"""power_to_db: 80 dB below the excerpt's maximum."""

_EARLY: Final = row_slices(EARLY_ROWS)
_LATE: Final = row_slices(LATE_ROWS)
_EARLY_COUNT: Final = sum(ROWS[name] for name in EARLY_ROWS)
_LATE_COUNT: Final = sum(ROWS[name] for name in LATE_ROWS)


def fma518(samples: NDArray[np.float32], rate: int) -> F32:
    """The 518 FMA features of one excerpt, with a workspace for this call only: for many, hold an :class:`Fma518`.

    Arguments, result and errors are those of :meth:`Fma518.compute`.
    """
    with Fma518(max(1, len(samples)), rate) as extractor:
        return extractor.compute(samples, rate)


class Fma518:
    """Tables and workspace for the 518 FMA features of excerpts of at most ``max_samples`` at up to ``max_rate`` Hz.

    The definition is ``features.py`` of the FMA data set (Defferrard et al., ISMIR 2017) as librosa 0.11 computes it,
    its 22 050 Hz axis for everything computed from ``S=`` included; ``docs/features.md`` says it in full. Nothing
    whose size grows with the excerpt is allocated after construction. The workspace takes about 1.2 kB per frame of 512
    samples, and a fixed 16 MiB at most for power spectra. One object computes one call at a time: it is not
    thread-safe.

    Args:
        max_samples: of an excerpt, at its own rate.
        max_rate: in Hz.
        workers: threads that share one call (1 or 2 make sense); the result is the same to the bit.
        most: excerpts of one length that :meth:`compute` takes at a time: short ones cost less together.

    Raises:
        ValueError: an argument is below 1, or the rate above 768 kHz.
    """

    def __init__(self, max_samples: int, max_rate: int, *, workers: int = 1, most: int = 1) -> None:
        limits = {"max_samples": max_samples, "max_rate": max_rate, "workers": workers, "most": most}
        for name, value in limits.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if max_rate > HIGHEST_RATE:
            raise ValueError(
                f"max_rate is {max_rate} Hz; the constant-Q buffers are made for at most {HIGHEST_RATE} Hz"
            )
        self.max_samples = max_samples
        self.max_rate = max_rate
        self.workers = workers
        self.most = most
        self._dimensions = (1,) if most == 1 else (1, 2)
        self._low_capacity = math.ceil(max_samples * SUBSTITUTE_RATE / max_rate)
        frames = frame_count(max(max_samples, self._low_capacity))
        self._static = StaticTables()
        self._blocks = [SpectralBlock(self._static) for _ in range(workers)]
        self._cqt = ConstantQ()
        self._smoother = CensSmoother()
        self._tonnetz = tonnetz_basis()
        self._dct = cosine_transform() * _DECIBEL
        self._rate_tables = lru_cache(_CACHED_RATES)(RateTables)
        self._chroma_filters = lru_cache(_CACHED_TUNINGS)(chroma_filters)
        self._resampler = lru_cache(_CACHED_RATES)(_resampler)
        self._resampled = np.empty(most * self._low_capacity, dtype=np.float32)
        self._mel = np.empty((most * frames, MEL_BANDS), dtype=np.float32)
        self._power = np.empty((min(most * frames, _KEPT_FRAMES), BINS), dtype=np.float32)
        self._early = np.empty(most * _EARLY_COUNT * frames, dtype=np.float32)
        self._valleys = np.empty(most * CONTRAST_BANDS * frames, dtype=np.float32)
        # The peaks are used up before the late rows are written: one memory for both.
        self._room = most * (frames + 1)
        peaks = most * sum(PEAKS_PER_FRAME) * (frames + BLOCK)
        self._late = np.empty(max(_LATE_COUNT * self._room, peaks), dtype=np.float32)
        self._folded = np.empty((frames + 1, PITCH_CLASSES), dtype=np.float32)
        self._scratch = [np.empty((2, SCRATCH_VALUES)) for _ in range(2)]
        self._table = np.empty((most, FEATURE_COUNT))
        self._early_columns = np.array(column_order(EARLY_ROWS))
        self._late_columns = {name: np.array(column_order((name,))) for name in LATE_ROWS}
        self._pool = ThreadPoolExecutor(workers - 1, "fma518") if workers > 1 else None
        self._closed = False

    def __enter__(self) -> Fma518:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and release soxr's streams; nothing can be computed afterwards. Closing twice is allowed."""
        if self._pool is not None:
            self._pool.shutdown()
        self._closed = True
        self._resampler.cache_clear()
        self._cqt.close()

    def compute(self, samples: NDArray[np.float32], rate: int, out: F32 | None = None) -> F32:
        """The 518 features of an excerpt, or of each of several of one length.

        Those of several are what each alone has, to the bit. Below 8 500 Hz, where the constant-Q transform cannot be,
        it is resampled to 16 kHz first; it may then last at most max_samples / max_rate seconds.

        Args:
            samples: mono, float32[n] or float32[excerpts, n], contiguous and finite, 1 ≤ n ≤ max_samples and
                1 ≤ excerpts ≤ most.
            rate: in Hz, at most max_rate.
            out: float32[518] or float32[excerpts, 518] for the result; None allocates it.

        Returns:
            float32[518], or float32[excerpts, 518], in the order of ``FEATURE_NAMES``, always finite: a row that does
            not vary has skew and kurtosis 0.

        Raises:
            ValueError: the input breaks one of these limits, or this object is closed.
        """
        self._check(samples, rate)
        shape = (*samples.shape[:-1], FEATURE_COUNT)
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise ValueError(f"out is {out.dtype}{list(out.shape)}; expected float32{list(shape)}")
        excerpts = samples.reshape(-1, samples.shape[-1])
        if rate < LOWEST_NATIVE_RATE:
            excerpts, rate = self._resample(excerpts, rate), SUBSTITUTE_RATE
        count, frames = len(excerpts), frame_count(excerpts.shape[1])
        rows = self._early[: count * _EARLY_COUNT * frames].reshape(count, _EARLY_COUNT, frames)
        valleys = self._valleys[: count * CONTRAST_BANDS * frames].reshape(count, CONTRAST_BANDS, frames)
        mel = self._mel[: count * frames].reshape(count, frames, MEL_BANDS)
        power = None
        if count * frames <= len(self._power):
            power = self._power[: count * frames].reshape(count, frames, BINS)
        peaks = self._peak_stores(count, frames)
        outputs = [
            SpectralOutput(rows[i], valleys[i], mel[i], None if power is None else power[i], *peaks[i])
            for i in range(count)
        ]
        tables = self._rate_tables(float(rate))

        def analyse(block: SpectralBlock, excerpt: int, start: int) -> None:
            block.analyse(excerpts[excerpt], start, min(start + BLOCK, frames), tables, outputs[excerpt])

        self._over_blocks(count, frames, analyse)
        pitches = [at_rate.tuning() for at_rate, _ in peaks]
        filters = [self._chroma_filters(at_default_sr.tuning()) for _, at_default_sr in peaks]

        with self._beside(lambda: self._constant_q(excerpts, rate, pitches)):
            self._chroma_stft(excerpts, frames, power, filters)
            self._mfcc(mel)
            _contrast(rows[:, _EARLY["spectral_contrast"]], valleys)
            self._table[:count, self._early_columns] = _statistics(rows, self._scratch[0])
        np.copyto(out, self._table[:count].reshape(shape), casting="same_kind")
        return out

    def _check(self, samples: NDArray[np.float32], rate: int) -> None:
        if self._closed:
            raise ValueError("this Fma518 is closed; make a new one")
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim not in self._dimensions:
            found = (
                f"{samples.dtype}{list(samples.shape)}" if isinstance(samples, np.ndarray) else type(samples).__name__
            )
            several = "" if self.most == 1 else ", or float32[excerpts, n]"
            raise ValueError(f"samples are {found}; expected a float32[n] array of mono audio{several}")
        if not samples.flags.c_contiguous:
            raise ValueError("samples are not contiguous; pass numpy.ascontiguousarray(samples)")
        if samples.ndim == 2 and not 1 <= len(samples) <= self.most:
            raise ValueError(f"{len(samples)} excerpts; this Fma518 takes 1 to most = {self.most} at a time")
        length = samples.shape[-1]
        if not 1 <= length <= self.max_samples:
            raise ValueError(f"{length} samples; this Fma518 takes 1 to max_samples = {self.max_samples}")
        if not 1 <= rate <= self.max_rate:
            raise ValueError(f"rate {rate} Hz; this Fma518 takes 1 to max_rate = {self.max_rate} Hz")
        # Sum of squares: one pass, no temporary; a nan or an infinity anywhere makes it one.
        flat = samples.reshape(-1)
        if not math.isfinite(float(np.dot(flat, flat))):
            raise ValueError("samples are not finite (nan or infinity), or too large for float32 power")

    def _resample(self, excerpts: F32, rate: int) -> F32:
        count, given = excerpts.shape
        length = math.ceil(given * SUBSTITUTE_RATE / rate)
        if length > self._low_capacity:
            raise ValueError(
                f"{given} samples at {rate} Hz become {length} at {SUBSTITUTE_RATE} Hz; this Fma518 takes "
                f"{self._low_capacity} there (max_samples / max_rate = {self.max_samples / self.max_rate:.1f} s)"
            )
        stream = self._resampler(rate)
        targets = self._resampled[: count * length].reshape(count, length)
        for samples, target in zip(excerpts, targets, strict=True):
            stream.clear()
            filled = 0
            for start in range(0, given, _RESAMPLE_CHUNK):
                last = start + _RESAMPLE_CHUNK >= given
                piece = stream.resample_chunk(samples[start : start + _RESAMPLE_CHUNK], last=last)
                piece = piece[: length - filled]
                target[filled : filled + len(piece)] = piece
                filled += len(piece)
            target[filled:] = 0
        return targets

    def _peak_stores(self, count: int, frames: int) -> list[tuple[PeakStore, PeakStore]]:
        room = -(-frames // BLOCK) * BLOCK
        first, second = (room * each for each in PEAKS_PER_FRAME)
        memory = self._late.view(np.uint32)[: count * (first + second)].reshape(count, -1)
        return [
            (
                PeakStore(own[:first], PEAKS_PER_FRAME[0], BLOCK, frames),
                PeakStore(own[first:], PEAKS_PER_FRAME[1], BLOCK, frames),
            )
            for own in memory
        ]

    def _over_blocks(self, count: int, frames: int, work: Callable[[SpectralBlock, int, int], None]) -> None:
        """Call ``work`` for every excerpt and the first frame of every block of it, on all threads.

        Blocks are independent of one another.
        """
        per_excerpt = -(-frames // BLOCK)
        waiting = iter(range(count * per_excerpt))

        def drain(block: SpectralBlock) -> None:
            # next() of a range iterator is one step under the interpreter lock: no block is taken twice.
            for number in waiting:
                excerpt, place = divmod(number, per_excerpt)
                work(block, excerpt, place * BLOCK)

        if self._pool is None:
            drain(self._blocks[0])
            return
        helpers = [self._pool.submit(drain, block) for block in self._blocks[1:]]
        try:
            drain(self._blocks[0])
        finally:
            # Whatever fails here: a helper that goes on would write into the next excerpt's frames.
            wait(helpers)
        for helper in helpers:
            helper.result()

    @contextmanager
    def _beside(self, work: Callable[[], None]) -> Iterator[None]:
        """Do ``work`` on another thread, if there is one, beside the body, else after it; both are over afterwards."""
        if self._pool is None:
            yield
            work()
            return
        future = self._pool.submit(work)
        try:
            yield
        finally:
            wait([future])
        future.result()

    def _late_rows(self, name: str, count: int, frames: int) -> F32:
        """Rows [count, rows, frames] of one late feature; the constant-Q ones can have a frame more than the others."""
        start = _LATE[name].start * self._room
        return self._late[start : start + count * ROWS[name] * frames].reshape(count, ROWS[name], frames)

    def _store(self, name: str, rows: F32, scratch: int, excerpts: Sequence[int] | None = None) -> None:
        """Keep the statistics of ``rows`` [excerpts, rows, frames], of the first ones or of those named."""
        which = np.arange(len(rows)) if excerpts is None else np.array(excerpts)
        self._table[which[:, None], self._late_columns[name]] = _statistics(rows, self._scratch[scratch])

    def _constant_q(self, excerpts: F32, rate: int, tunings: Sequence[float]) -> None:
        # The tuning decides how often the rate is halved, and with it whether there is one frame more.
        alike: dict[int, list[int]] = {}
        for i, tuning in enumerate(tunings):
            frames = cqt_frame_count(excerpts.shape[1], early_halvings(float(rate), tuning))
            alike.setdefault(frames, []).append(i)
        names = ("chroma_cqt", "chroma_cens", "tonnetz")
        for frames, members in alike.items():
            rows = [self._late_rows(name, len(members), frames) for name in names]
            for place, i in enumerate(members):
                self._cqt.fold(excerpts[i], float(rate), tunings[i], self._folded)
                self._chromas(frames, *(each[place] for each in rows))
            for name, each in zip(names, rows, strict=True):
                self._store(name, each, 1, members)

    def _chromas(self, frames: int, chroma: F32, cens: F32, centroids: F32) -> None:
        """Fill the rows of one excerpt, [rows, frames], from its folded transform."""
        for start in range(0, frames, _CHUNK):
            stop = min(start + _CHUNK, frames)
            low, high = max(0, start - CENS_REACH), min(frames, stop + CENS_REACH)
            surrounded = np.ascontiguousarray(self._folded[low:high].T)
            quantised = np.zeros((PITCH_CLASSES, stop - start + 2 * CENS_REACH), dtype=np.float32)
            place = low - (start - CENS_REACH)
            quantise(surrounded, quantised[:, place : place + high - low])
            part = cens[:, start:stop]
            self._smoother.apply(quantised, part)
            tonnetz(self._tonnetz, part, centroids[:, start:stop])
            chroma[:, start:stop] = surrounded[:, start - low : stop - low]
            normalise_peak(chroma[:, start:stop])

    def _chroma_stft(self, excerpts: F32, frames: int, power: F32 | None, filters: Sequence[F32]) -> None:
        chroma = self._late_rows("chroma_stft", len(excerpts), frames)
        if power is None:

            def project(block: SpectralBlock, excerpt: int, start: int) -> None:
                stop = min(start + BLOCK, frames)
                spectra = block.power(excerpts[excerpt], start, stop)
                project_power(spectra, filters[excerpt], chroma[excerpt, :, start:stop])

            self._over_blocks(len(excerpts), frames, project)
        else:
            for spectra, own, rows in zip(power, filters, chroma, strict=True):
                for start in range(0, frames, _PROJECTED):
                    part = slice(start, start + _PROJECTED)
                    project_power(spectra[part], own, rows[:, part])
        self._store("chroma_stft", chroma, 0)

    def _mfcc(self, mel: F32) -> None:
        count, frames, _ = mel.shape
        coefficients = self._late_rows("mfcc", count, frames)
        floor = _decibel_floor(mel)
        # Decibels above the floor: bands at the floor are exactly 0, and so are a silent frame's coefficients 2 … 20.
        # What that takes off is the same for all bands, so it belongs to the first coefficient alone.
        offset = _DECIBEL * np.log(floor) * np.float32(math.sqrt(MEL_BANDS))
        for start in range(0, frames, _CHUNK):
            part = mel[:, start : start + _CHUNK]
            np.divide(part, floor, out=part)
            np.maximum(part, 1, out=part)
            np.log(part, out=part)
            for bands, own in zip(part, coefficients, strict=True):
                np.matmul(self._dct, bands.T, out=own[:, start : start + _CHUNK])
        coefficients[:, 0] += offset[:, 0]
        self._store("mfcc", coefficients, 0)


def _statistics(rows: F32, scratch: F64) -> F64:
    """Of ``rows`` [excerpts, rows, frames], which is reordered: [excerpts, rows × statistics]."""
    return row_statistics(rows.reshape(-1, rows.shape[2]), scratch).reshape(len(rows), -1)


def _decibel_floor(power: F32) -> F32:
    """Power below which librosa's ``power_to_db`` cuts off: amin, or top_db below the maximum, whichever is higher.

    Of each excerpt of ``power`` [excerpts, …, …] its own: [excerpts, 1, 1].
    """
    loudest = power.max(axis=(1, 2), keepdims=True)
    floor: F32 = np.maximum(_FLOOR, np.maximum(_FLOOR, loudest) * _RANGE)
    return floor


def _contrast(peaks: F32, valleys: F32) -> None:
    """Decibels of the peaks less decibels of the valleys, each no deeper than 80 dB below its own maximum; in place.

    Both are [excerpts, bands, frames].
    """
    for levels in (peaks, valleys):
        np.maximum(levels, _decibel_floor(levels), out=levels)
        np.log(levels, out=levels)
        np.multiply(levels, _DECIBEL, out=levels)
    np.subtract(peaks, valleys, out=peaks)


def _resampler(rate: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate, SUBSTITUTE_RATE, 1, dtype="float32", quality="HQ")
