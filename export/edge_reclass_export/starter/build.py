"""Build the starter bundle: extract, cross-validate, choose, fit on all clips, write, hear clips from elsewhere."""

from __future__ import annotations

import csv
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_reclass import Cascade, __version__
from edge_reclass.bundle import (
    MANIFEST,
    ExcerptEntry,
    Fma518Entry,
    HeadEntry,
    Manifest,
    PolicyEntry,
    StageEntry,
    StepEntry,
    WaveformEntry,
    file_entry,
    manifest_text,
)
from edge_reclass.errors import UsageError
from edge_reclass.policy import Policy
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import head_contract, head_mlp
from edge_reclass_export.musicnn_export import musicnn_encoder
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.onnx_writer import write_bytes, write_model
from edge_reclass_export.parity import reference_vectors
from edge_reclass_export.recipes.musicnn import MusicnnOptions
from edge_reclass_export.starter.card import Choice, Outside, model_card, sweep
from edge_reclass_export.starter.catalogue import GENRES, Catalogue, read_catalogue
from edge_reclass_export.starter.embeddings import Extractor
from edge_reclass_export.starter.evaluation import STAGES, Evaluation, cross_validate, fit_stage, make_policy
from edge_reclass_export.starter.fitting import Head

__all__ = ["build_starter"]

FEATURE_RATE = 20_000
"""In Hz; below every source's 22 050, so that each clip passes the same anti-aliasing filter. At 22 050 Hz a file of
that rate would pass none, one of 44 100 Hz would lose its top kilohertz, and the genre would depend on which it was."""
FEATURE_SECONDS = 3.0
ACCEPTS = (0.50, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95, 0.98)
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4)
_TOOLS = ("numpy", "scipy", "soxr", "onnx", "onnxruntime", "torch", "scikit-learn")
LOSS = 0.01
"""Balanced accuracy that may be given up for leaving early."""

Say = Callable[[str], None]


def build_starter(data: Path, wheel: MusicnnWheel, output: Path, *, threads: int, say: Say) -> Path:
    """Build the bundle from ``data`` (see shared/data/README.md) and the musicnn wheel into the folder ``output``.

    The folder appears when everything is done; an earlier bundle there is replaced in one step.

    Raises:
        UsageError: the data or the output folder cannot be used.
        CheckpointError: the wheel is not intact.
        TrackError: a clip cannot be decoded.
    """
    if output.exists() and not (output / MANIFEST).is_file() and any(output.iterdir()):
        raise UsageError(f"{output}: expected no folder, an empty one or a bundle to replace; got something else")
    catalogue = read_catalogue(data)
    encoder = musicnn_encoder(wheel, variant="msd", options=MusicnnOptions(embedding="penultimate"))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        root = Path(temporary) / output.name
        stages = _encoders(encoder)
        write_bytes(encoder.model, root / stages[1].files["fp32"])
        with Extractor(*stages, root / stages[1].files["fp32"], threads=threads) as extractor:
            clips = extractor.extract_all(
                catalogue.root, catalogue.clips, lambda n: say(f"clip {n} of {len(catalogue.clips)}")
            )
            widths = extractor.widths
        evaluation = cross_validate(clips, GENRES, widths, say)
        policy, choices = choose(evaluation)
        say("fitting the heads on all clips")
        labels = np.array([GENRES.index(clip.clip.genre) for clip in clips])
        heads = {stage: fit_stage(stage, clips, labels, len(GENRES), widths, seed=0) for stage in STAGES}
        _write(root, encoder, stages, heads, evaluation, policy, catalogue, card=None)
        outside = _outside(root, data)
        card = model_card(catalogue, evaluation, policy, choices, *stages, outside)
        _write(root, encoder, stages, heads, evaluation, policy, catalogue, card=card)
        _replace(root, output)
    return output


def _encoders(encoder: ExportedEncoder) -> tuple[Fma518Entry, WaveformEntry]:
    window = round(FEATURE_SECONDS * FEATURE_RATE)
    return (
        Fma518Entry(rate=FEATURE_RATE, window_samples=window, hop_samples=window),
        WaveformEntry(
            rate=encoder.rate,
            window_samples=encoder.window_samples,
            hop_samples=encoder.hop_samples,
            dim=encoder.dim,
            files={"fp32": "encoders/musicnn.fp32.onnx"},
            short=encoder.short,
            reference="reference/musicnn.npz",
        ),
    )


def choose(evaluation: Evaluation) -> tuple[Policy, list[Choice]]:
    """The weight with the best balanced accuracy when both stages are always asked, and then the lowest threshold
    that gives up no more than LOSS of it. Gives the policy and the table of thresholds."""
    always = [sweep(evaluation, weight, (1.0,))[0] for weight in WEIGHTS]
    # In steps of half a point: below that, the smaller weight of fma is the simpler choice.
    best = max(always, key=lambda choice: (round(choice.balanced * 200), -choice.weight))
    choices = sweep(evaluation, best.weight, (*ACCEPTS, 1.0))
    good = [choice for choice in choices if choice.balanced >= best.balanced - LOSS]
    return make_policy(min(choice.accept for choice in good), best.weight), choices


def _write(
    root: Path,
    encoder: ExportedEncoder,
    entries: tuple[Fma518Entry, WaveformEntry],
    heads: dict[str, Head],
    evaluation: Evaluation,
    policy: Policy,
    catalogue: Catalogue,
    card: str | None,
) -> None:
    for stage, head in heads.items():
        model = head_mlp(head.layers, head.scaler)
        write_model(model, root / f"heads/{stage}.onnx", expect=head_contract(head.layers))
    vectors = reference_vectors(encoder.model, rate=encoder.rate, samples=encoder.window_samples)
    write_bytes(vectors.to_bytes(), root / "reference/musicnn.npz")
    write_bytes(encoder.licence.encode("utf-8"), root / encoder.licence_file)
    if card is not None:
        write_bytes(card.encode("utf-8"), root / "README.md")
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    inputs = {"fma": ["fma"], "musicnn": ["fma", "musicnn"]}
    encoders: list[Fma518Entry | WaveformEntry] = list(entries)
    stages = [
        StageEntry(
            name=stage,
            encoder=entry,
            head=HeadEntry(
                file=f"heads/{stage}.onnx",
                inputs=inputs[stage],
                temperature=round(evaluation.temperatures[stage], 4),
            ),
        )
        for stage, entry in zip(STAGES, encoders, strict=True)
    ]
    manifest = Manifest(
        format=1,
        name="starter",
        genres=list(evaluation.genres),
        excerpt=ExcerptEntry(start="center", seconds=30.0),
        stages=stages,
        policies=_policies(policy),
        default_policy=policy.name,
        files={path.relative_to(root).as_posix(): file_entry(path) for path in files},
        provenance={
            "built_by": f"edge-reclass export starter, edge-reclass {__version__}",
            "tools": {"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
            "data_index_sha256": catalogue.index_sha256,
            "clips": len(catalogue.clips),
            "musicnn": dict(encoder.provenance),
            "heads_licence": "Apache-2.0; fitted on research-only and non-commercial audio, see README.md",
        },
    )
    write_bytes(manifest_text(manifest).encode("utf-8"), root / MANIFEST)


def _policies(policy: Policy) -> dict[str, PolicyEntry]:
    last = policy.steps[-1]
    weights = dict(last.weights)

    def ladder(accept: float) -> PolicyEntry:
        steps = [
            StepEntry(after="fma", weights={"fma": 1.0}, accept=accept),
            StepEntry(after=last.after, weights=weights),
        ]
        return PolicyEntry(vote="soft", steps=steps)

    accept = policy.steps[0].accept
    return {
        policy.name: ladder(1.0 if accept is None else accept),
        "fast": PolicyEntry(vote="soft", steps=[StepEntry(after="fma", weights={"fma": 1.0})]),
        # No confidence is above 1, so that the second stage is always asked.
        "thorough": ladder(1.0),
    }


def _outside(root: Path, data: Path) -> list[Outside]:
    """What the bundle says of the labelled FMA clips, which were never used for fitting."""
    index = data / "audio" / "fma" / "labels.csv"
    if not index.is_file():
        return []
    found = []
    with Cascade.open(root) as cascade, index.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            verdict = cascade.classify(index.parent / row["file"])
            if verdict.genre is None or verdict.confidence is None or verdict.decided_by is None:
                raise UsageError(f"{index.parent / row['file']}: {verdict.status}: {verdict.error}")
            one = Outside(f"fma/{row['file']}", row["top_genre"], verdict.genre, verdict.confidence, verdict.decided_by)
            found.append(one)
    return found


def _replace(root: Path, output: Path) -> None:
    """Put the finished bundle in place of an earlier one; at no moment is a half-written one there."""
    old = root.with_name(f"{output.name}.old")
    if output.exists():
        output.replace(old)
    try:
        shutil.move(root, output)
    except OSError:
        if old.exists():
            old.replace(output)
        raise
