"""Verdicts and embeddings of one machine against another's, as a table; exit 1 where they differ by more than allowed.

``compare.py REFERENCE OTHER``: two folders, each with ``verdicts.json`` (of ``classify --format json``) and
``embeddings.npz`` (of embeddings.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge_reclass.features import FEATURE_COUNT, FEATURE_NAMES

# What other code paths may change: NEON for AVX, other kernels in soxr and BLAS, mpg123's and FFmpeg's own assembler.
# Samples differ by 1e-7 to 1e-6 after decoding and resampling. Measured on 2026-11-20: confidences by 1e-4 at most,
# musicnn by 1.5e-6.
CONFIDENCE = 5e-4
"""Absolute."""
RELATIVE = 1e-4
"""Largest |difference| / largest |reference| of an encoder's embedding."""
OFF = 1e-3
"""One of the 518 features is off beyond this, relative to max(|reference|, 1e-3)."""
OFF_SHARE = 0.01
"""Of the features without spectral contrast: 4 of 469. Rounding may cross a threshold inside a definition (roll-off,
zero crossings), and one frame that crosses it moves std, skew and kurtosis at once."""
CONTRAST = 0.1
"""Relative, of spectral contrast: its highest valleys lie above what a resampled signal holds, in rounding noise, so
that x86-64 and arm64 differ by 5e-2 in their kurtosis."""
COSINE = 0.99999
"""Least cosine of any embedding; for the 518 features after division by the largest value over all clips."""

IS_CONTRAST = np.array([name.startswith("spectral_contrast/") for name in FEATURE_NAMES])


def main() -> int:
    """Print the table; 1 if anything is beyond its limit."""
    reference, other = Path(sys.argv[1]), Path(sys.argv[2])
    verdicts, others = _verdicts(reference), _verdicts(other)
    vectors, other_vectors = np.load(reference / "embeddings.npz"), np.load(other / "embeddings.npz")
    print(f"reference: {vectors['about']}\nother:     {other_vectors['about']}\n")
    if verdicts.keys() != others.keys() or set(vectors) != set(other_vectors) or not verdicts:
        print(f"not the same clips: {sorted(verdicts)} and {sorted(others)}")
        return 1
    print(f"{'clip':<18}{'verdict':<32}{'confidence':>10}{'differs':>10}  embeddings")
    bad = 0
    for clip, verdict in verdicts.items():
        faults, difference = _verdict_faults(verdict, others[clip])
        cells: list[str] = []
        for name in sorted(key for key in vectors if key.startswith(f"{clip}/")):
            scale = np.max(
                [np.abs(vectors[key]) for key in vectors if key.split("/")[-1] == name.split("/")[-1]], axis=0
            )
            cell, beyond = _embedding(name.split("/")[-1], vectors[name], other_vectors[name], scale)
            cells.append(cell)
            faults += beyond
        label = f"{verdict['genre']}, by {verdict['decided_by']}"
        print(f"{clip:<18}{label:<32}{verdict['confidence']:>10.6f}{difference:>10.1e}  {'; '.join(cells)}")
        for fault in faults:
            print(f"  BEYOND ITS LIMIT: {fault}")
        bad += bool(faults)
    print(
        f"\nlimits: genre, stage and status identical; confidence {CONFIDENCE:g}; embeddings {RELATIVE:g} of the"
        f" largest value, cosine {COSINE}; features: {OFF_SHARE:.1%} off by more than {OFF:g}, contrast by {CONTRAST:g}"
    )
    print(f"{len(verdicts)} clips, {bad} beyond a limit")
    return 1 if bad else 0


def _verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    loaded = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    return {Path(verdict["path"]).name: verdict for verdict in loaded}


def _verdict_faults(verdict: dict[str, Any], other: dict[str, Any]) -> tuple[list[str], float]:
    if verdict["status"] != "ok" or other["status"] != "ok":
        return [f"status {verdict['status']} and {other['status']}: {verdict['error'] or other['error']}"], float("nan")
    faults = [
        f"{key}: {verdict[key]} and {other[key]}" for key in ("genre", "decided_by") if verdict[key] != other[key]
    ]
    difference = abs(verdict["confidence"] - other["confidence"])
    if not difference <= CONFIDENCE:
        faults.append(f"confidence: {verdict['confidence']} and {other['confidence']}")
    return faults, difference


def _embedding(stage: str, ours: np.ndarray, theirs: np.ndarray, scale: np.ndarray) -> tuple[str, list[str]]:
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return f"{stage} {theirs.shape}", [f"{stage}: shape {ours.shape} and {theirs.shape}, or not finite"]
    if len(ours) == FEATURE_COUNT:
        difference = np.abs(theirs - ours) / np.maximum(np.abs(ours), 1e-3)
        off, contrast = int(np.sum(difference[~IS_CONTRAST] > OFF)), float(np.max(difference[IS_CONTRAST]))
        cosine = _cosine(ours / np.maximum(scale, 1e-9), theirs / np.maximum(scale, 1e-9))
        cell = f"{stage} {off} of {np.sum(~IS_CONTRAST)} off, contrast differs {contrast:.1e}"
        beyond = off > OFF_SHARE * np.sum(~IS_CONTRAST) or not contrast <= CONTRAST
    else:
        relative = float(np.max(np.abs(theirs - ours)) / np.max(np.abs(ours)))
        cosine = _cosine(ours, theirs)
        cell, beyond = f"{stage} differs {relative:.1e}", not relative <= RELATIVE
    cell += f", 1 - cosine {max(0.0, 1 - cosine):.1e}"
    return cell, [cell] if beyond or not cosine >= COSINE else []


def _cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


if __name__ == "__main__":
    sys.exit(main())
