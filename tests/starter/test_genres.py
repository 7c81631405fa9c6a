"""Real music gets its genre from the starter bundle."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from edge_reclass import Cascade
from edge_reclass.verdict import Verdict
from starter_clips import clips


@pytest.fixture(scope="module")
def elsewhere(cascade: Cascade, data: Path) -> dict[Path, Verdict]:
    """What it says of clips that it was not fitted on."""
    return {path: cascade.classify(path) for path in sorted((data / "audio").glob("*/*.[om][gp][g3]"))}


def test_clips_that_it_was_fitted_on(cascade: Cascade, data: Path) -> None:
    """No measure of accuracy (the card has that), but of the way from the file to the genre: it must be the same
    as at fitting, and a wrong rate, window, scaler or order of genres would leave little of this.

    An answer that is always unsure would pass every test of what is no music."""
    chosen = clips(data, 3)
    verdicts = [cascade.classify(clip.path) for clip in chosen]
    assert np.mean([one.genre == clip.genre for clip, one in zip(chosen, verdicts, strict=True)]) > 0.9
    assert np.mean([one.status == "ok" for one in verdicts]) >= 0.9


def test_fma_clips_from_elsewhere(elsewhere: dict[Path, Verdict], data: Path) -> None:
    folder = data / "audio" / "fma"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["file"]: row["top_genre"] for row in csv.DictReader(file)}
    right = sum(elsewhere[folder / file].genre == genre for file, genre in labels.items())
    assert right > len(labels) / 2, f"{right} of {len(labels)}"


def test_music_from_elsewhere_is_inside_the_range(elsewhere: dict[Path, Verdict]) -> None:
    assert len(elsewhere) >= 18
    outside = [path for path, verdict in elsewhere.items() if verdict.reason_code == "outside_range"]
    assert len(outside) <= 1, outside
