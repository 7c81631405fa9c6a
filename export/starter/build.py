"""Build the starter bundle: hear all clips, cross-validate, fit, write, and measure what was written."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from edge_reclass import Cascade, __version__
from edge_reclass.bundle import (
    MANIFEST,
    ExcerptEntry,
    Fma518Entry,
    HeadEntry,
    Manifest,
    PolicyEntry,
    RangeEntry,
    StageEntry,
    StepEntry,
    WaveformEntry,
    file_entry,
    manifest_text,
)
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_COUNT
from edge_reclass_export.cascade_writer import write_cascade_reference
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import LinearLayer, Scaler, head_interface, head_mlp
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.onnx_writer import model_bytes, write_bytes
from edge_reclass_export.parity import reference_vectors
from edge_reclass_export.recipes.musicnn import musicnn_encoder
from edge_reclass_export.recipes.musicnn_model import MusicnnOptions
from starter.card import Measured, model_card
from starter.catalogue import GENRES, Catalogue, read_catalogue
from starter.embeddings import hear_clips, hear_nonsense
from starter.evaluation import (
    ACCEPT,
    INPUTS,
    MIN_CONFIDENCE,
    REPEATS,
    Fitted,
    Recipe,
    cross_validate,
    fit,
    held_out,
    missed,
)
from starter.fitting import Head
from starter.measure import elsewhere, levels_kept, nonsense_answered
from starter.ranges import RangeTest

FEATURE_RATE: Final = 20_000
"""In Hz; below every source's 22 050, so that each clip passes the same anti-aliasing filter. At 22 050 Hz a file of
that rate would pass none, one of 44 100 Hz would lose its top kilohertz, and the genre would depend on which it was."""
FEATURE_SECONDS: Final = 3.0
LOUDNESS: Final = -15.0
_TOOLS: Final = ("numpy", "scipy", "soxr", "onnx", "onnxruntime", "scikit-learn")

Say = Callable[[str], None]


def build_starter(data: Path, wheel: MusicnnWheel, output: Path, *, threads: int, say: Say) -> Path:
    """Build the bundle from ``data`` (see its README.md) and the musicnn wheel into the folder ``output``.

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
        bundle = _Bundle(root, encoder, catalogue)
        bundle.write(*_nothing_fitted(encoder.dim), card=None)
        with Cascade.open(root, policy="thorough", threads=threads) as cascade:
            clips = hear_clips(
                cascade, catalogue.root, catalogue.clips, lambda n: say(f"clip {n} of {len(catalogue.clips)}")
            )
        say("hearing made signals")
        with Cascade.open(root, policy="fast", threads=threads) as cascade:
            nonsense = list(hear_nonsense(cascade))
        recipe, heard = cross_validate(clips, nonsense, say, repeats=REPEATS)
        valid = [clip for clip in clips if clip.clip.valid]
        say("the list of other artists")
        by_list = held_out([clip for clip in clips if not clip.clip.valid], valid, nonsense, say)
        say("the source that is left out")
        near = [clip for clip in clips if clip.clip.dataset != "emotify"]
        # Electronic has no clips in any other source.
        far = [clip for clip in clips if clip.clip.dataset == "emotify" and clip.clip.genre != "Electronic"]
        by_source = held_out(near, far, nonsense, say)
        say("fitting on all clips")
        fitted = fit(clips, nonsense)
        bundle.write(fitted, recipe, card=None)
        with Cascade.open(root, threads=threads) as cascade:
            say("measuring the bundle")
            measured = Measured(
                missed(clips, nonsense, recipe.limit),
                nonsense_answered(cascade, seed=100),
                levels_kept(cascade, catalogue.root, catalogue.clips),
                elsewhere(cascade, data),
            )
        card = model_card(catalogue, clips, recipe, heard, by_list, by_source, measured)
        bundle.write(fitted, recipe, card=card)
        write_cascade_reference(root)
        _replace(root, output)
    return output


def _nothing_fitted(dim: int) -> tuple[Fitted, Recipe]:
    """Heads and a range test of zeros: with them a bundle can be opened, and tells its embeddings."""

    def head(inputs: tuple[str, ...]) -> Head:
        width = FEATURE_COUNT + (dim if len(inputs) > 1 else 0)
        layer = LinearLayer(np.zeros((width, len(GENRES))), np.zeros(len(GENRES)))
        return Head(Scaler(np.zeros(width), np.ones(width)), layer)

    scaler = Scaler(np.zeros(FEATURE_COUNT), np.ones(FEATURE_COUNT), clip=1.0)
    test = RangeTest(scaler, LinearLayer(np.zeros((2 * FEATURE_COUNT, 1)), np.zeros(1)))
    heads = {stage: head(inputs) for stage, inputs in INPUTS.items()}
    return Fitted(heads, test), Recipe(dict.fromkeys(INPUTS, 1.0), 1.0)


class _Bundle:
    """The bundle's folder; every part of it can be written anew."""

    def __init__(self, root: Path, encoder: ExportedEncoder, catalogue: Catalogue) -> None:
        self._root, self._encoder, self._catalogue = root, encoder, catalogue
        write_bytes(encoder.model, root / "encoders/musicnn.fp32.onnx")
        vectors = reference_vectors(encoder.model, rate=encoder.rate, samples=encoder.window_samples)
        write_bytes(vectors.to_bytes(), root / "reference/musicnn.npz")
        write_bytes(encoder.licence.encode("utf-8"), root / encoder.licence_file)

    def write(self, fitted: Fitted, recipe: Recipe, card: str | None) -> None:
        """Heads, range test, card and manifest."""
        root = self._root
        for stage, head in fitted.heads.items():
            model = head_mlp([head.layer], head.scaler)
            write_bytes(model_bytes(model, expect=head_interface([head.layer])), root / f"heads/{stage}.onnx")
        write_bytes(model_bytes(fitted.range.graph(), expect=fitted.range.interface), root / "heads/fma.range.onnx")
        if card is not None:
            write_bytes(card.encode("utf-8"), root / "README.md")
        files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
        manifest = Manifest(
            format=1,
            name="starter",
            genres=list(GENRES),
            excerpt=ExcerptEntry(start="center", seconds=30.0),
            min_confidence=MIN_CONFIDENCE,
            stages=self._stages(recipe),
            policies=_policies(),
            default_policy="progressive",
            files={path.relative_to(root).as_posix(): file_entry(path) for path in files},
            provenance={
                "built_by": f"python -m starter, edge-reclass {__version__}",
                "tools": {"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
                "data_index_sha256": self._catalogue.index_sha256,
                "clips": len(self._catalogue.clips),
                "musicnn": dict(self._encoder.provenance),
                "heads_licence": "Apache-2.0; fitted on research-only and non-commercial audio, see README.md",
            },
        )
        write_bytes(manifest_text(manifest).encode("utf-8"), root / MANIFEST)

    def _stages(self, recipe: Recipe) -> list[StageEntry]:
        encoder, window = self._encoder, round(FEATURE_SECONDS * FEATURE_RATE)
        waveform = WaveformEntry(
            rate=encoder.rate,
            window_samples=encoder.window_samples,
            hop_samples=encoder.hop_samples,
            dim=encoder.dim,
            files={"fp32": "encoders/musicnn.fp32.onnx"},
            short=encoder.short,
            reference="reference/musicnn.npz",
        )
        features = Fma518Entry(rate=FEATURE_RATE, window_samples=window, hop_samples=window)
        ranges = {"fma": RangeEntry("heads/fma.range.onnx", ["fma"], recipe.limit)}
        encoders: dict[str, Fma518Entry | WaveformEntry] = {"fma": features, "musicnn": waveform}
        return [
            StageEntry(
                name=stage,
                encoder=encoders[stage],
                loudness=LOUDNESS,
                head=HeadEntry(
                    file=f"heads/{stage}.onnx",
                    inputs=list(inputs),
                    temperature=round(recipe.temperatures[stage], 4),
                    range=ranges.get(stage),
                ),
            )
            for stage, inputs in INPUTS.items()
        ]


def _policies() -> dict[str, PolicyEntry]:
    def ladder(accept: float) -> PolicyEntry:
        first = StepEntry(after="fma", weights={"fma": 1.0}, accept=accept)
        return PolicyEntry(vote="soft", steps=[first, StepEntry(after="musicnn", weights={"musicnn": 1.0})])

    return {
        "progressive": ladder(ACCEPT),
        "fast": PolicyEntry(vote="soft", steps=[StepEntry(after="fma", weights={"fma": 1.0})]),
        # No confidence is above 1, so that the second stage is always asked.
        "thorough": ladder(1.0),
    }


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
