"""tests/arm64/compare.py finds what differs: the run under qemu is worth what its comparison is worth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_reclass.features import FEATURE_NAMES

CONTRAST = [name.startswith("spectral_contrast/") for name in FEATURE_NAMES]
COMPARE = Path(__file__).resolve().parents[1] / "arm64" / "compare.py"
CLIPS = ("one.wav", "two.m4a")


def verdict(clip: str, **changes: Any) -> dict[str, Any]:
    return {
        "path": f"/music/{clip}",
        "status": "ok",
        "genre": "Jazz",
        "decided_by": "musicnn",
        "confidence": 0.75,
        "error": None,
        **changes,
    }


def vectors(seed: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    sizes = {"fma": 518, "musicnn": 200}
    rows = {
        f"{clip}/{stage}": generator.uniform(0.1, 9, size).astype(np.float32)
        for clip in CLIPS
        for stage, size in sizes.items()
    }
    return {"about": np.array("a machine"), **rows}


def write(folder: Path, verdicts: list[dict[str, Any]], rows: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    (folder / "verdicts.json").write_text(json.dumps(verdicts), encoding="utf-8")
    np.savez(folder / "embeddings.npz", **rows)
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write(tmp_path / "reference", [verdict(clip) for clip in CLIPS], vectors())


def compare(reference: Path, other: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(COMPARE), str(reference), str(other)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_rounding_is_no_difference(reference: Path, tmp_path: Path) -> None:
    rows = {name: row if name == "about" else row * np.float32(1 + 1e-5) for name, row in vectors().items()}
    rows["one.wav/fma"][np.flatnonzero(CONTRAST)[5]] *= np.float32(1.02)
    code, output = compare(reference, write(tmp_path / "b", [verdict(clip, confidence=0.7502) for clip in CLIPS], rows))
    assert code == 0
    assert "2 clips, 0 beyond a limit" in output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genre": "Rock"}, "genre: Jazz and Rock"),
        ({"decided_by": "fma"}, "decided_by: musicnn and fma"),
        ({"confidence": 0.7506}, "confidence: 0.75 and 0.7506"),
        ({"status": "corrupt", "error": "no frames"}, "status ok and corrupt: no frames"),
    ],
)
def test_another_verdict_is_found(reference: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    other = write(tmp_path / "b", [verdict("one.wav"), verdict("two.m4a", **changes)], vectors())
    code, output = compare(reference, other)
    assert code == 1
    assert f"BEYOND ITS LIMIT: {message}" in output
    assert "2 clips, 1 beyond a limit" in output


@pytest.mark.parametrize("fault", ["features", "contrast", "embedding", "order", "nan"])
def test_another_embedding_is_found(reference: Path, tmp_path: Path, fault: str) -> None:
    rows = vectors()
    if fault == "features":
        rows["one.wav/fma"][:5] *= 1.01  # chroma
    elif fault == "contrast":
        rows["one.wav/fma"][np.flatnonzero(CONTRAST)[5]] *= 1.2
    elif fault == "embedding":
        rows["one.wav/musicnn"][7] += 0.02
    elif fault == "order":
        rows["one.wav/fma"] = rows["one.wav/fma"][::-1].copy()
    else:
        rows["one.wav/musicnn"][0] = np.nan
    code, output = compare(reference, write(tmp_path / "b", [verdict(clip) for clip in CLIPS], rows))
    assert code == 1
    assert "2 clips, 1 beyond a limit" in output


def test_a_clip_that_is_missing_is_found(reference: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b", [verdict("one.wav")], vectors())
    code, output = compare(reference, other)
    assert code == 1
    assert "not the same clips" in output
