"""A synthetic bundle from the project's own export commands, which run as processes of their own.

Encoders have their true size and layout and untrained weights; heads are untrained too. Such a bundle says what a
device costs and nothing about music. Every stage is marked ``random_init``: ``classify`` refuses it without
``--allow-random``. Its policies:

* ``thorough`` asks every stage for every track and takes the mean of all;
* ``early-exit``: after each stage but the last, half of the tracks that reached it leave, for a threshold is the median
  confidence of that stage on the calibration tracks. The shares are a design, not a finding: they make every stage work
  on a known share, so that a measured cascade can be held against the sum of reach × cost;
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np

from edge_reclass import Cascade
from edge_reclass.bundle import MANIFEST, Manifest, PolicyEntry, StepEntry, load, manifest_text
from edge_reclass.errors import BundleError, EdgeReclassError, MissingExtraError, UsageError
from edge_reclass.features import FEATURE_COUNT
from edge_reclass_bench.synthetic.calibration import CalibrationTracks
from edge_reclass_bench.synthetic.shares import StepThreshold, thresholds

__all__ = [
    "ENCODERS",
    "EXIT_SHARE",
    "FEATURE_STAGE",
    "Runner",
    "export_process",
    "export_stages",
    "make",
    "set_policies",
]

ENCODERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "mert-95m": ("mert", "--random-init", "95m"),
        "mert-330m": ("mert", "--random-init", "330m"),
        "openjmla": ("openjmla", "--random-init"),
    }
)
"""Name of a stage → the arguments of ``edge-reclass export`` that make it."""

FEATURE_STAGE: Final = "fma"
"""The stage on the 518 features that comes first in every synthetic bundle."""

EXIT_SHARE: Final = 0.5
"""Share of the tracks that leave after each stage but the last, of those that reached it."""

_SEED = 518
_HIDDEN = 256
_RECORD = "synthetic"
_GENRES = ("Blues", "Classical", "Country", "Electronic", "Folk", "Hip-Hop", "Jazz", "Pop", "Reggae", "Rock", "Spoken")

Runner = Callable[[Sequence[str]], None]
"""Runs ``edge-reclass export`` with these arguments; raises an ``EdgeReclassError`` where it fails."""


def make(
    names: Sequence[str],
    folder: Path,
    *,
    audio: Sequence[Path] = (),
    run: Runner | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """The directory of a synthetic bundle with the stages fma and ``names``, in this order; made where it is missing.

    What a run that was interrupted had finished is kept: stages that are there are not exported again. A bundle that
    is complete is reused as it is, whatever ``audio`` says.

    Args:
        names: some of :data:`ENCODERS`, each once.
        folder: where bundles are kept; this one gets a directory of its own in it.
        audio: tracks on which scaler and thresholds are set; without any, synthesised ones.
        run: how to run an export; by default as a process of its own with this Python.
        say: takes a line on what is being done.

    Raises:
        UsageError: a name is unknown or a duplicate.
        MissingExtraError: torch is not installed.
        EdgeReclassError: an export failed; the message has its last words.
    """
    unknown = [name for name in names if name not in ENCODERS]
    if unknown or not names or len(set(names)) != len(names):
        raise UsageError(f"--synthetic: expected some of {', '.join(ENCODERS)}, each once, got {', '.join(names)!r}")
    root = folder / "-".join(["synthetic", *names])
    stages = [FEATURE_STAGE, *names]
    if _complete(root, stages):
        say(f"{root}: complete, reused")
        return root
    tracks = CalibrationTracks(audio)
    export_stages(names, root, tracks, run or export_process, say)
    say(f"thresholds from {tracks.description}")
    set_policies(root, stages, tracks)
    return root


def export_stages(
    names: Sequence[str], root: Path, tracks: CalibrationTracks, run: Runner, say: Callable[[str], None]
) -> None:
    """The stages fma and ``names`` that ``root`` does not have yet; see :func:`make`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    there = _stages_of(root)
    if FEATURE_STAGE not in there:
        say(f"{FEATURE_STAGE}: an untrained head on the 518 features")
        _export_features(root, tracks, run)
    for name in names:
        if name not in there:
            say(f"{name}: untrained weights at full size; this takes minutes")
            run([*ENCODERS[name], "--stage", name, "--bundle", str(root)])


def export_process(arguments: Sequence[str]) -> None:
    """``edge-reclass export`` with this Python. Raises ``EdgeReclassError`` with the last lines that it printed."""
    if find_spec("torch") is None:
        raise MissingExtraError("a synthetic bundle is exported from torch", "export")
    command = [sys.executable, "-m", "edge_reclass", "export", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = " | ".join(done.stderr.strip().splitlines()[-5:]) or "it printed nothing"
        raise EdgeReclassError(f"{' '.join(command[1:])}: expected exit code 0, got {done.returncode}: {last}")


def _complete(root: Path, stages: Sequence[str]) -> bool:
    """True where the bundle has been finished and every file is what the manifest says."""
    if not (root / MANIFEST).exists():
        return False
    bundle = load(root)
    if [stage.name for stage in bundle.manifest.stages] != list(stages) or _RECORD not in bundle.manifest.provenance:
        return False
    try:
        bundle.verify()
    except BundleError as error:
        raise BundleError(f"{error}; or delete {root}, and it is made again") from error
    return True


def _stages_of(root: Path) -> list[str]:
    return [stage.name for stage in load(root).manifest.stages] if (root / MANIFEST).exists() else []


def _export_features(root: Path, tracks: CalibrationTracks, run: Runner) -> None:
    """An MLP with untrained weights; features are standardised on the tracks, or the largest would drown the others."""
    if find_spec("torch") is None:
        raise MissingExtraError("a synthetic bundle is exported from torch", "export")
    import torch

    rows = tracks.features(44_100)
    spread = rows.std(axis=0)
    random = np.random.default_rng(_SEED)
    state = {}
    for layer, (inputs, outputs) in enumerate(((FEATURE_COUNT, _HIDDEN), (_HIDDEN, len(_GENRES)))):
        kernel = random.standard_normal((outputs, inputs)) * np.sqrt((2 - layer) / inputs)
        state[f"net.{3 * layer}.weight"] = torch.from_numpy(kernel.astype(np.float32))
        state[f"net.{3 * layer}.bias"] = torch.zeros(outputs)
    checkpoint = {
        "model": state,
        "scaler_mean": rows.mean(axis=0),
        "scaler_scale": np.where(spread > 0.0, spread, 1.0),
        "genres": list(_GENRES),
    }
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "untrained_mlp.pth"
        torch.save(checkpoint, file)
        layout = ["--features", "librosa-0.11", "--activation", "relu", "--stage", FEATURE_STAGE]
        run(["fma-mlp", str(file), *layout, "--bundle", str(root)])


def set_policies(root: Path, stages: Sequence[str], tracks: CalibrationTracks) -> None:
    """Runs all stages on the tracks, chooses thresholds, and writes policies and provenance into the manifest."""
    manifest = load(root).manifest
    provenance = {**manifest.provenance}
    for name in stages:
        provenance[name] = {**dict(provenance.get(name) or {}), "random_init": True}
    thorough = _policy([StepThreshold(stage, 1.0, 0, 0) for stage in stages[:-1]], stages)
    manifest = msgspec.structs.replace(
        manifest, policies={"thorough": thorough}, default_policy="thorough", provenance=provenance
    )
    _write(root, manifest)
    with Cascade.open(root, policy="thorough", allow_random=True) as cascade:
        verdicts = tracks.verdicts(cascade)
    said = {stage: [verdict.stages[i].confidence or 0.0 for verdict in verdicts] for i, stage in enumerate(stages)}
    steps = thresholds(list(stages), said, [EXIT_SHARE] * (len(stages) - 1))
    provenance[_RECORD] = {
        "meaning": "untrained weights: costs are real, answers and accuracy mean nothing, exit shares are by design",
        "exit_share": EXIT_SHARE,
        "calibration": tracks.description,
        "exits": {step.stage: f"{step.exited} of {step.entered} leave" for step in steps},
        "confidence_spread": {stage: float(f"{np.std(values):.3g}") for stage, values in said.items()},
    }
    manifest = msgspec.structs.replace(
        manifest,
        policies={"early-exit": _policy(steps, stages), "thorough": thorough},
        default_policy="early-exit",
        provenance=provenance,
    )
    _write(root, manifest)


def _policy(steps: Sequence[StepThreshold], order: Sequence[str]) -> PolicyEntry:
    """Each step looks at its own stage's confidence; the last takes the mean of all."""
    early = [StepEntry(after=step.stage, weights={step.stage: 1.0}, accept=step.accept) for step in steps]
    return PolicyEntry("soft", [*early, StepEntry(after=order[-1], weights=dict.fromkeys(order, 1.0))])


def _write(root: Path, manifest: Manifest) -> None:
    """In one step, so that there is never half a manifest."""
    temporary = root / f".{MANIFEST}.part"
    temporary.write_text(manifest_text(manifest), encoding="utf-8")
    temporary.replace(root / MANIFEST)
