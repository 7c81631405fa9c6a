"""Build the starter bundle: hear all clips, judge, choose, fit, write, and measure what was written."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
    RangeEntry,
    StageEntry,
    WaveformEntry,
    file_entry,
    manifest_text,
)
from edge_reclass.cascade import Policy, Step, policy_entry
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_COUNT
from edge_reclass_export.cascade_writer import write_cascade_reference
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import LinearLayer, Scaler, head_interface, head_mlp
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.onnx_writer import model_bytes, write_bytes
from edge_reclass_export.parity import reference_vectors
from edge_reclass_export.plus.parts import FOLDER
from edge_reclass_export.recipes.musicnn import musicnn_encoder
from edge_reclass_export.recipes.musicnn_model import MusicnnOptions
from edge_reclass_learn.fit.heads import Head
from edge_reclass_learn.fit.ranges import RangeTest
from starter import embeddings
from starter.card import Chosen, Measured, model_card
from starter.catalogue import GENRES, Catalogue, read_catalogue
from starter.embeddings import ClipEmbeddings, NonsenseEmbedding, hear_clips, hear_nonsense
from starter.figures import MIN_CONFIDENCE
from starter.heard import FEATURE_WINDOWS, STARTER, Fitted, Recipe, fit, usual
from starter.judging import compare, judge, missed
from starter.measure import costs, elsewhere, levels_kept, nonsense_answered
from starter.plus import Source, build_plus
from starter.policies import LISTENING, choose, named
from starter.remembered import write_memory

FEATURE_RATE: Final = 20_000
"""In Hz; below every source's 22 050, so that each clip passes the same anti-aliasing filter. At 22 050 Hz a file of
that rate would pass none, one of 44 100 Hz would lose its top kilohertz, and the genre would depend on which it was."""
FEATURE_SECONDS: Final = 3.0
LOUDNESS: Final = -15.0
CANDIDATES: Final[Sequence[tuple[str, ...]]] = (
    ("fma",),
    ("musicnn",),
    ("pools",),
    ("mtt",),
    ("fma", "musicnn"),
    ("musicnn", "mtt"),
    ("fma", "musicnn", "mtt"),
    ("fma", "pools"),
)
"""Embeddings that a head could take, from what the features and the wheel hold."""
_TOOLS: Final = ("numpy", "scipy", "soxr", "onnx", "onnxruntime", "scikit-learn")

Say = Callable[[str], None]


def build_starter(
    data: Path,
    wheel: MusicnnWheel,
    output: Path,
    *,
    threads: int,
    say: Say,
    sources: Mapping[str, Source] | None = None,
    plus: Path = FOLDER,
) -> Path:
    """Build the bundle from ``data`` (see its README.md) and the musicnn wheel into the folder ``output``.

    With ``sources``, encoders of weights that do not ship, also the heads and policies of starter plus, into ``plus``.
    The folder appears when everything is done; an earlier bundle there is replaced in one step.

    Raises:
        UsageError: the data or the output folder cannot be used.
        CheckpointError: the wheel is not intact.
        TrackError: a clip cannot be decoded.
    """
    if output.exists() and not (output / MANIFEST).is_file() and any(output.iterdir()):
        raise UsageError(f"{output}: expected no folder, an empty one or a bundle to replace; got something else")
    catalogue = read_catalogue(data)
    encoder = musicnn_encoder(wheel, options=MusicnnOptions(embedding="penultimate"))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        wide: dict[str, ExportedEncoder] = {
            variant: musicnn_encoder(wheel, variant=variant, options=MusicnnOptions(embedding=embedding))
            for variant, embedding in embeddings.WIDE.items()
        }
        wide |= {stage: source.encoder for stage, source in (sources or {}).items()}
        clips, nonsense = _hear(Path(temporary) / "hearing", wide, catalogue, threads, say)
        compared: dict[tuple[str, ...], dict[str, tuple[int, int]]] = {}
        for inputs in CANDIDATES:
            say(f"comparing {' + '.join(inputs)}")
            compared[inputs] = compare(clips, inputs)
        judges = judge(clips, nonsense, STARTER, say)
        recipe = judges.recipes[None]
        say("fitting on all clips")
        fitted = fit(clips, nonsense, STARTER)
        root = Path(temporary) / output.name
        heard = [clip.views["whole"] for clip in clips]
        vectors = {stage: np.stack([one.row(usual([stage])) for one in heard]) for stage in STARTER}
        write_memory(root, [clip.clip for clip in clips], vectors)
        bundle = _Bundle(root, {"musicnn": encoder}, catalogue)
        bundle.write(fitted, recipe, named(STARTER, {}), card=None)
        say("measuring costs, and choosing thresholds by them")
        spent = costs(root, named(STARTER, {}), catalogue)
        accepts = {left_out: choose(judges, STARTER, spent, left_out) for left_out in (None, *judges.heard)}
        policies = named(STARTER, accepts[None])
        bundle.write(fitted, recipe, policies, card=None)
        with Cascade.open(root, threads=threads) as cascade:
            say("measuring the bundle")
            measured = Measured(
                missed(clips, nonsense, recipe.limit),
                nonsense_answered(cascade, seed=100),
                levels_kept(cascade, catalogue.root, catalogue.clips),
                elsewhere(cascade, data),
            )
        chosen = Chosen(STARTER, judges, accepts)
        card = model_card(catalogue, clips, chosen, spent, compared, measured)
        bundle.write(fitted, recipe, policies, card=card)
        write_cascade_reference(root)
        if sources:
            build_plus(plus, root, sources, clips, nonsense, catalogue, chosen, say)
        _replace(root, output)
    return output


def _hear(
    root: Path, encoders: Mapping[str, ExportedEncoder], catalogue: Catalogue, threads: int, say: Say
) -> tuple[list[ClipEmbeddings], list[NonsenseEmbedding]]:
    """What all encoders make of the clips, after each number of windows, and fma of made signals."""
    layout = {"fma": ("fma",), **{stage: (stage,) for stage in encoders}}
    bundle = _Bundle(root, encoders, catalogue)
    counts = {stage: (*LISTENING, None) if stage in encoders else (FEATURE_WINDOWS, None) for stage in layout}
    steps = [Step(stage, {stage: 1.0}, 1.0, count) for stage in layout for count in counts[stage]]
    steps[-1] = Step(steps[-1].after, steps[-1].weights)
    policies = {
        "hear": Policy("hear", "soft", tuple(steps)),
        "fma": Policy("fma", "soft", (Step("fma", {"fma": 1.0}),)),
    }
    bundle.write(_nothing_fitted(encoders), Recipe(layout, dict.fromkeys(layout, 1.0), 1.0), policies, card=None)
    with Cascade.open(root, policy="hear", threads=threads) as cascade:
        total = len(catalogue.clips)
        clips = hear_clips(cascade, catalogue.root, catalogue.clips, lambda n: say(f"clip {n} of {total}"))
    say("hearing made signals")
    with Cascade.open(root, policy="fma", threads=threads) as cascade:
        return clips, list(hear_nonsense(cascade))


def _nothing_fitted(encoders: Mapping[str, ExportedEncoder]) -> Fitted:
    """Heads and a range test of zeros: with them a bundle can be opened, and tells its embeddings."""

    def head(width: int) -> Head:
        layer = LinearLayer(np.zeros((width, len(GENRES))), np.zeros(len(GENRES)))
        return Head(Scaler(np.zeros(width), np.ones(width)), layer)

    scaler = Scaler(np.zeros(FEATURE_COUNT), np.ones(FEATURE_COUNT), clip=1.0)
    test = RangeTest(scaler, LinearLayer(np.zeros((2 * FEATURE_COUNT, 1)), np.zeros(1)))
    heads = {"fma": head(FEATURE_COUNT), **{stage: head(one.dim) for stage, one in encoders.items()}}
    return Fitted({stage: (stage,) for stage in heads}, heads, test)


class _Bundle:
    """The bundle's folder; every part of it can be written anew."""

    def __init__(self, root: Path, encoders: Mapping[str, ExportedEncoder], catalogue: Catalogue) -> None:
        self._root, self._encoders, self._catalogue = root, encoders, catalogue
        for stage, encoder in encoders.items():
            write_bytes(encoder.model, root / f"encoders/{stage}.fp32.onnx")
            vectors = reference_vectors(encoder.model, rate=encoder.rate, samples=encoder.window_samples)
            write_bytes(vectors.to_bytes(), root / f"reference/{stage}.npz")
            if encoder.licence_file:
                write_bytes(encoder.licence.encode("utf-8"), root / encoder.licence_file)

    def write(self, fitted: Fitted, recipe: Recipe, policies: Mapping[str, Policy], card: str | None) -> None:
        """Heads, range test, card and manifest; the first of the policies is the default."""
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
            stages=[self._stage(stage, inputs, recipe) for stage, inputs in fitted.layout.items()],
            policies={name: policy_entry(policy) for name, policy in policies.items()},
            default_policy=next(iter(policies)),
            files={path.relative_to(root).as_posix(): file_entry(path) for path in files},
            provenance={
                "built_by": f"python -m starter, edge-reclass {__version__}",
                "tools": {"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
                "data_index_sha256": self._catalogue.index_sha256,
                "clips": len(self._catalogue.clips),
                **{stage: dict(encoder.provenance) for stage, encoder in self._encoders.items()},
                "heads_licence": "Apache-2.0; fitted on research-only and non-commercial audio, see README.md",
            },
        )
        write_bytes(manifest_text(manifest).encode("utf-8"), root / MANIFEST)

    def _stage(self, stage: str, inputs: tuple[str, ...], recipe: Recipe) -> StageEntry:
        encoder: Fma518Entry | WaveformEntry
        if stage == "fma":
            window = round(FEATURE_SECONDS * FEATURE_RATE)
            encoder = Fma518Entry(rate=FEATURE_RATE, window_samples=window, hop_samples=window)
        else:
            found = self._encoders[stage]
            encoder = WaveformEntry(
                rate=found.rate,
                window_samples=found.window_samples,
                hop_samples=found.hop_samples,
                dim=found.dim,
                files={"fp32": f"encoders/{stage}.fp32.onnx"},
                short=found.short,
                reference=f"reference/{stage}.npz",
            )
        return StageEntry(
            name=stage,
            encoder=encoder,
            loudness=LOUDNESS,
            head=HeadEntry(
                file=f"heads/{stage}.onnx",
                inputs=list(inputs),
                temperature=round(recipe.temperatures[stage], 4),
                range=RangeEntry("heads/fma.range.onnx", ["fma"], recipe.limit) if stage == "fma" else None,
            ),
        )


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
