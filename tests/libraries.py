"""A small library that can be changed, and what its state says of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import bundles
from command import Done, run
from edge_reclass.library.rows import TrackRow, Wanted
from edge_reclass.library.state import State

RATE = 16_000


@dataclass(frozen=True)
class Library:
    """Music, a bundle and a state file in a folder of their own."""

    root: Path
    bundle: Path

    @property
    def music(self) -> Path:
        return self.root / "music"

    @property
    def file(self) -> Path:
        return self.root / "library.state"

    def add(self, name: str, seed: int | None = None, seconds: float = 1.0) -> Path:
        """A track whose sound its name or ``seed`` decides."""
        path = self.music / name
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(sum(name.encode()) if seed is None else seed)
        soundfile.write(path, random.normal(0, 0.1, round(RATE * seconds)), RATE)
        return path

    def classify(self, *options: object, paths: object = None) -> Done:
        """``classify --state`` of the music, as JSON lines."""
        given = [self.music] if paths is None else paths
        return run("classify", *given, "--state", self.file, "--bundle", self.bundle, "-f", "jsonl", *options)

    def done(self, *options: object, code: int = 0) -> list[str]:
        """The names of the tracks of which a run gave a verdict."""
        ran = self.classify(*options)
        assert ran.returncode == code, ran.stderr
        return [os.path.relpath(json.loads(line)["path"], self.music) for line in ran.stdout.splitlines()]

    def rows(self, wanted: Wanted | None = None) -> dict[str, TrackRow]:
        with State.open(self.file) as state:
            return {
                os.path.relpath(os.fsdecode(row.path), self.music): row
                for row in state.tracks(wanted or Wanted(absent=None))
            }


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("library") / "bundle"
    stage = bundles.waveform_stage("mert", rate=RATE, window=RATE // 4)
    return bundles.make_bundle(root, [stage], biases={"mert": (3.0, 0.0, 1.0)}, min_confidence=0.2)


@pytest.fixture
def library(tmp_path: Path, small_bundle: Path) -> Library:
    """Three tracks, two in a folder below."""
    made = Library(tmp_path, small_bundle)
    for name in ("album/one.flac", "album/two.flac", "three.wav"):
        made.add(name)
    return made
