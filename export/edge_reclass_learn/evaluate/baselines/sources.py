"""Features of other approaches: what each needs, and how it turns an excerpt into numbers.

Every one is given the same excerpt (see extracting.py). The libraries are no dependency of edge-reclass: a source whose
library is not installed says how to get it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from edge_reclass import __version__
from edge_reclass.cascade import fill_window, windows
from edge_reclass.errors import EngineError, UsageError
from edge_reclass.features import Fma518

Vector = NDArray[np.float32]
Extract = Callable[[Vector], Vector]
"""Mono float32[samples] at the source's rate → float32[dim]; raises what its library raises."""

RATE: Final = 22_050
"""In Hz. Music of all rates is brought to the same one, or the bandwidth would give the source away."""
_LONGEST: Final = 31.0
_WINDOW, _HOP, _TAGS_RATE, _TAGS = 48_128, 47_872, 16_000, 50
"""Of musicnn; see export/edge_reclass_export/recipes/musicnn_model.py."""


class Missing(Exception):
    """A source cannot be used here; the message says what to install or give."""


@dataclass(frozen=True)
class Source:
    """Features of one kind.

    package: distribution that it rests on, by which its version is known
    settings: all else that its features depend on
    note: what is not taken, or done otherwise than its authors do
    opened: a function that extracts; raises ``Missing``, or ``UsageError`` for a file that is no graph
    """

    name: str
    package: str
    rate: int
    settings: str
    note: str
    opened: Callable[[], Extract]


def installed(package: str) -> str:
    """The distribution with its version. Raises ``Missing`` where it is not installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        raise Missing(f"{package} is not installed: pip install {package}") from None


def sources(tags: Path | None) -> Mapping[str, Source]:
    """All sources, by a short name.

    Args:
        tags: graph of ``edge-reclass export musicnn --tags``; None: its source cannot be used.

    Raises:
        UsageError: ``tags`` cannot be read.
    """
    try:
        graph = None if tags is None else tags.read_bytes()
    except OSError as error:
        raise UsageError(f"{tags}: cannot be read ({error.strerror or error})") from error
    return {
        "fma518": Source("518 features", "edge-reclass", RATE, __version__, "", _fma518),
        "egemaps": Source(
            "openSMILE eGeMAPS", "opensmile", RATE, "eGeMAPSv02", "made for speech", _opensmile("eGeMAPSv02")
        ),
        "compare": Source(
            "openSMILE ComParE", "opensmile", RATE, "ComParE_2016", "made for speech", _opensmile("ComParE_2016")
        ),
        "essentia": Source(
            "Essentia MusicExtractor",
            "essentia",
            RATE,
            "mean, stdev",
            "without the names of keys and chords, beat positions and covariances",
            _essentia,
        ),
        "tags": Source(
            "musicnn tags",
            "onnxruntime",
            _TAGS_RATE,
            hashlib.sha256(graph or b"").hexdigest(),
            "mean over the windows of the 50 tags",
            lambda: _tags(tags, graph),
        ),
    }


def _fma518() -> Extract:
    extractor = Fma518(int(_LONGEST * RATE), RATE)
    return lambda samples: np.array(extractor.compute(samples, RATE), np.float32)


def _opensmile(name: str) -> Callable[[], Extract]:
    def opened() -> Extract:
        opensmile = _module("opensmile", "opensmile")
        smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet[name], feature_level=opensmile.FeatureLevel.Functionals
        )
        return lambda samples: np.asarray(smile.process_signal(samples, RATE).to_numpy()[0], np.float32)

    return opened


_ESSENTIA_RATE: Final = 44_100
"""It works at this rate, and resamples at a greater cost than soxr does."""
_ESSENTIA_LEFT_OUT: Final = ("dmean", "dmean2", "dvar", "dvar2", "max", "median", "min", "var", "cov", "icov")
"""Statistics that were not asked for, which it gives of some descriptors of very short audio all the same."""


def _essentia() -> Extract:
    essentia, standard = _module("essentia", "essentia"), _module("essentia.standard", "essentia")
    essentia.log.infoActive = essentia.log.warningActive = False
    two = ["mean", "stdev"]
    extractor = standard.MusicExtractor(lowlevelStats=two, rhythmStats=two, tonalStats=two)

    def extract(samples: Vector) -> Vector:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:  # it takes nothing but the name of a file
            soundfile.write(
                file.name, soxr.resample(samples, RATE, _ESSENTIA_RATE), _ESSENTIA_RATE, "FLOAT", format="WAV"
            )
            pool, _ = extractor(file.name)
        parts = []
        for name in sorted(pool.descriptorNames()):
            area, last = name.split(".")[0], name.split(".")[-1]
            if area == "metadata" or last in _ESSENTIA_LEFT_OUT or name == "rhythm.beats_position":
                continue
            value = pool[name]
            if not isinstance(value, str):
                parts.append(np.ravel(np.asarray(value, np.float32)))
        return np.concatenate(parts)

    return extract


def _tags(path: Path | None, graph: bytes | None) -> Extract:
    if graph is None:
        raise Missing(
            "give the graph: pip download --no-deps musicnn==0.1.0;"
            " edge-reclass export musicnn --wheel musicnn-0.1.0-py3-none-any.whl --tags -o tags.onnx"
        )
    from edge_reclass_export.parity import open_graph

    try:
        run = open_graph(graph)
    except EngineError as error:
        raise UsageError(f"{path}: {error}") from error

    def extract(samples: Vector) -> Vector:
        starts = windows(len(samples), _WINDOW, _HOP)
        batch = np.empty((len(starts), _WINDOW), np.float32)
        for row, start in zip(batch, starts, strict=True):
            fill_window(samples, start, "repeat", row)
        outputs = run(batch)
        if len(outputs) != 2 or outputs[1].shape[1:] != (_TAGS,):
            raise Missing(f"the graph has no output of {_TAGS} tags: edge-reclass export musicnn --tags -o tags.onnx")
        return np.asarray(outputs[1].mean(axis=0), np.float32)

    return extract


def _module(name: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:  # also where a shared library of its own is not there
        raise Missing(f"{package} cannot be imported ({error}): pip install {package}") from error
