"""From a trained MLP to a bundle's stage on the 518 FMA features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import MANIFEST, Agreement, ExcerptEntry, Fma518Entry, HeadEntry, StageEntry, load
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_COUNT
from edge_reclass_export.bundle_writer import BundleChange, put_stage
from edge_reclass_export.engine.verify import Limits
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.excerpt_option import choose_excerpt
from edge_reclass_export.head_files import HeadOptions, TrainedHead, agreed_genres, head_notice, read_trained_head
from edge_reclass_export.heads import head_answer, head_interface
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.own_genres import OwnGenres, check_own_genres
from edge_reclass_export.parity import SEED, require_parity, run_graph
from edge_reclass_export.recipes.fma_mlp_model import (
    RMSE_COLUMNS,
    RMSE_RATIO,
    Features,
    FeatureScale,
    build,
    choose_scale,
    runtime_scaler,
)

STAGE = "fma"
RATE = 44_100
"""Rate of the tracks that FMA's features were computed from; the features depend on it."""

_TOLERANCE = Limits(cosine=0.999_999, relative=1e-4)
_ROWS = 32


def parse_rate(text: str) -> int | Literal["native"]:
    """Hz, or ``native``. Raises ``UsageError`` where ``text`` is neither."""
    if text == "native":
        return "native"
    if not text.isdecimal() or not 8_000 <= int(text) <= 192_000:
        raise UsageError(f"--rate: expected 8000 to 192000 Hz or native, got {text!r}")
    return int(text)


@dataclass(frozen=True)
class FmaMlp:
    """A head that was read and fits the 518 features, and the stage that it becomes.

    Attributes:
        head: as the file has it.
        scale: of the features that it was trained on.
        genres: the bundle's, which are the names of its classes unless it has its own.
        stage: name of the stage.
        excerpt: text of ``--excerpt``, if any.
        rate: at which the features are computed.
        own: genres of the head, where they are not the bundle's.
    """

    head: TrainedHead
    scale: FeatureScale
    genres: list[str]
    stage: str
    excerpt: str | None
    rate: int | Literal["native"]
    own: OwnGenres | None = None

    def put(self, root: Path) -> BundleChange:
        """Put the head and its stage into the bundle ``root``; the change's notes say on which features it stands.

        By default a head from FMA's table, which was computed on whole tracks, gets the full track, others the
        bundle's excerpt. A stage that is there keeps its excerpt, unless the new head's features are on the other
        scale.

        Raises:
            UsageError: a file cannot be written.
            BundleError: the bundle that is there is not valid.
            ParityError: the head's graph does not give what the checkpoint gives.
        """
        head, scale, stage = self.head, self.scale, self.stage
        content = model_bytes(build(head, scale), expect=head_interface(head.steps), notice=head_notice(head))
        proved = _prove(head, scale, content)
        default = ExcerptEntry(full=True) if scale.features == "fma-csv" else None
        before = _features_before(root, stage)
        rescaled = self.excerpt is None and before is not None and before != scale.features
        entry_head = HeadEntry(file=f"heads/{stage}.onnx", inputs=[stage])
        entry = StageEntry(
            name=stage,
            encoder=Fma518Entry(rate=self.rate),
            head=entry_head if self.own is None else self.own.enter(entry_head),
            excerpt=default if rescaled else choose_excerpt(self.excerpt, default, root, stage),
        )
        change = put_stage(
            root,
            entry,
            {entry.head.file: content},
            provenance=_provenance(head, scale, proved),
            genres=self.genres,
            keep_excerpt=not rescaled,
        )
        notes = [_scale_note(scale), *_missing_scaler(head)]
        if rescaled:
            notes.append(
                f"the stage's features were {before} before: its excerpt is now"
                f" {'the full track' if default else 'that of the bundle'}, as for a new stage; --excerpt says"
                " otherwise"
            )
        return replace(change, notes=(*notes, *change.notes))


def read_fma_mlp(
    checkpoint: Path,
    root: Path,
    *,
    stage: str = STAGE,
    features: Features = "auto",
    genres: Sequence[str] = (),
    excerpt: str | None = None,
    rate: int | Literal["native"] = RATE,
    options: HeadOptions | None = None,
    own: OwnGenres | None = None,
) -> FmaMlp:
    """Read and check a head for the bundle ``root``.

    ``genres`` name the classes where neither checkpoint nor bundle does; where the head has its ``own``, they are those
    of a new bundle. ``excerpt`` is the text of ``--excerpt``.

    Raises:
        UsageError: a file cannot be read, the scale of the features or the classes' names are missing.
        CheckpointError: the checkpoint is damaged or does not fit.
        BundleError: the bundle that is there is not valid.
    """
    head = read_trained_head(checkpoint, options)
    scale = choose_scale(head, features)
    choose_excerpt(excerpt, None, root, stage)
    if head.mix:
        raise CheckpointError(
            f"{checkpoint}: it has weights of hidden states ({', '.join(head.mix)}), which only MERT takes"
        )
    names = list(genres or _bundle_genres(root))
    if own is None:
        names = agreed_genres(head, names)
    else:
        own = check_own_genres(own, agreed_genres(head, own.genres or ()), names, f"--map for {checkpoint}")
    return FmaMlp(head, scale, names, stage, excerpt, rate, own)


def _features_before(root: Path, stage: str) -> str | None:
    """The feature scale of the stage of that name that is there; None where there is none or it does not say."""
    if not (root / MANIFEST).exists():
        return None
    known = load(root).manifest.provenance.get(stage)
    found = known.get("features") if isinstance(known, dict) else None
    return found if found in ("fma-csv", "librosa-0.11") else None


def _bundle_genres(root: Path) -> list[str]:
    return load(root).manifest.genres if (root / MANIFEST).exists() else []


def _prove(head: TrainedHead, scale: FeatureScale, content: bytes) -> Agreement:
    """The graph against the checkpoint in float64, on features as the runtime has them."""
    runtime = runtime_scaler(head.scaler, scale)
    inputs = np.random.default_rng(SEED).standard_normal((_ROWS, FEATURE_COUNT))
    if runtime is not None:
        inputs = runtime.mean + runtime.scale * inputs
    rows = inputs.astype(np.float32)
    got = run_graph(content, rows)[0]
    return require_parity(_answer(head, scale, rows), got, _TOLERANCE, f"the head made from {head.path}")


def _answer(head: TrainedHead, scale: FeatureScale, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The checkpoint's own arithmetic: features on its scale, its scaler, its layers."""
    value = rows.astype(np.float64)
    if scale.features == "fma-csv":
        value[:, RMSE_COLUMNS] *= RMSE_RATIO
    return head_answer(head.steps, head.scaler, value)


def _provenance(head: TrainedHead, scale: FeatureScale, proved: Agreement) -> dict[str, object]:
    return {
        "recipe": "fma-mlp",
        "source": head.path.name,
        "source_sha256": head.sha256,
        "licence": "not stated in the checkpoint",
        "features": scale.features,
        "features_because": scale.why,
        "rmse_factor": round(RMSE_RATIO, 6) if scale.features == "fma-csv" else 1.0,
        "scaler": head.scaler is not None,
        "checkpoint_says": dict(head.notes),
        "parity": {"fp32": {key: float(f"{value:.9g}") for key, value in asdict(proved).items()}},
    }


def _scale_note(scale: FeatureScale) -> str:
    if scale.features == "fma-csv":
        return (
            f"features: FMA's published table ({scale.why}): rmse columns 393-396 and 398 are multiplied by"
            f" {RMSE_RATIO:.2f} inside the head"
        )
    return f"features: as librosa 0.11 and this package compute them ({scale.why}): the rmse columns stay as they are"


def _missing_scaler(head: TrainedHead) -> tuple[str, ...]:
    if head.scaler is not None:
        return ()
    return (
        "warning: the checkpoint has no scaler; if the head was trained on standardised features, its answers will be"
        " wrong without it",
    )
