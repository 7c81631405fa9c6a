"""Starter plus: fit heads for encoders whose weights do not ship, and choose its policies (see export plus)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from edge_reclass import Cascade
from edge_reclass.bundle import PolicyEntry, content_entry
from edge_reclass.cascade import Policy, policy_entry
from edge_reclass_export.bundle_files import write_together
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import head_interface, head_mlp
from edge_reclass_export.onnx_writer import model_bytes, write_bytes
from edge_reclass_export.plus.assemble import assemble_plus, digests
from edge_reclass_export.plus.parts import (
    CARD,
    FILE,
    Combination,
    Extra,
    Parts,
    combination,
    parts_text,
    starter_digest,
)
from edge_reclass_export.recipes import efficientat, yamnet
from starter.card import Chosen, PlusBundle, plus_card
from starter.catalogue import Catalogue
from starter.embeddings import ClipEmbeddings, NonsenseEmbedding
from starter.heard import PLUS, STARTER, fit_one
from starter.judging import judge
from starter.measure import costs, elsewhere
from starter.policies import choose, named

_EFFICIENTAT: Final[Mapping[str, Any]] = {"embedding": "penultimate", "window_samples": 96_000}
"""Windows of 3 s: as good as those of 10 s that it was trained on, and the first few can be judged alone."""
_YAMNET: Final[Mapping[str, Any]] = {"embedding": "pooled", "patches": 3}


@dataclass(frozen=True)
class Source:
    """An encoder of the user's weights, and what a head for it has to say of them."""

    encoder: ExportedEncoder
    checkpoints: Mapping[str, str]
    origin: str
    licence: str
    options: Mapping[str, Any]


def read_sources(efficientat_file: Path, yamnet_files: Sequence[Path]) -> dict[str, Source]:
    """By stage.

    Raises:
        UsageError, CheckpointError: a file cannot be used.
    """
    read = efficientat.read_source(efficientat_file)
    found = {
        efficientat.STAGE: Source(
            efficientat.efficientat_encoder(read, **_EFFICIENTAT),
            {efficientat_file.name: digests(read.provenance)[0]},
            "https://github.com/fschmid56/EfficientAT/releases/tag/v0.0.1",
            "MIT",
            _EFFICIENTAT,
        )
    }
    if yamnet_files:
        other = yamnet.read_source(yamnet_files)
        found[yamnet.STAGE] = Source(
            yamnet.yamnet_encoder(other, **_YAMNET),
            dict(zip([file.name for file in yamnet_files], digests(other.provenance), strict=True)),
            "https://storage.googleapis.com/audioset/yamnet.h5, or the same weights as TensorFlow Lite",
            "Apache-2.0",
            _YAMNET,
        )
    return found


def build_plus(
    folder: Path,
    starter: Path,
    sources: Mapping[str, Source],
    clips: Sequence[ClipEmbeddings],
    nonsense: Sequence[NonsenseEmbedding],
    catalogue: Catalogue,
    compared: Chosen,
    say: Callable[[str], None],
) -> None:
    """Heads, ``plus.yaml`` and the card into ``folder``, for the finished bundle ``starter``, which is ``compared``."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) / "parts"
        extras = {stage: _extra(work, stage, source, clips) for stage, source in sources.items()}
        combinations: dict[str, Combination] = {}
        digest, bundles = starter_digest(starter), []
        write_bytes(b"", work / CARD)
        for layout in PLUS:
            if absent := [stage for stage in layout if stage not in (*STARTER, *sources)]:
                say(f"without {', '.join(absent)}")
                continue
            own = [stage for stage in layout if stage not in STARTER]
            name, encoders = combination(own), {stage: sources[stage].encoder for stage in own}
            say(f"judging the starter with {name}")
            judges = judge(clips, nonsense, layout, say)
            temperatures = {stage: round(value, 4) for stage, value in judges.recipes[None].temperatures.items()}
            bundle = Path(temporary) / "plus"
            unchosen = Combination(temperatures=temperatures, policies=_entries(named(layout, {})))
            parts = Parts(format=1, starter=digest, extras=extras, combinations={name: unchosen})
            assemble_plus(bundle, encoders, parts, starter=starter, folder=work)
            say("measuring costs, and choosing thresholds by them")
            spent = costs(bundle, named(layout, {}), catalogue)
            accepts = {left_out: choose(judges, layout, spent, left_out) for left_out in (None, *judges.heard)}
            chosen = Combination(temperatures=temperatures, policies=_entries(named(layout, accepts[None])))
            combinations[name] = chosen
            assemble_plus(bundle, encoders, replace(parts, combinations={name: chosen}), starter=starter, folder=work)
            with Cascade.open(bundle) as cascade:
                found = elsewhere(cascade, catalogue.root)
            bundles.append(PlusBundle(name, Chosen(layout, judges, accepts), spent, found))
        contents: dict[str, bytes | Path] = {one.head: (work / one.head).read_bytes() for one in extras.values()}
        contents[CARD] = plus_card(extras, bundles, compared).encode("utf-8")
        parts = Parts(format=1, starter=digest, extras=extras, combinations=combinations)
        write_together(folder, {**contents, FILE: parts_text(parts).encode("utf-8")})


def _extra(folder: Path, stage: str, source: Source, clips: Sequence[ClipEmbeddings]) -> Extra:
    """Fit the head of ``stage``, and write it into ``folder``."""
    head = fit_one(clips, (stage,))
    content = model_bytes(head_mlp([head.layer], head.scaler), expect=head_interface([head.layer]))
    write_bytes(content, folder / f"{stage}.onnx")
    return Extra(
        checkpoints=dict(source.checkpoints),
        source=source.origin,
        licence=source.licence,
        options=dict(source.options),
        dim=source.encoder.dim,
        head=f"{stage}.onnx",
        head_sha256=content_entry(content).sha256,
        loudness=-15.0,
    )


def _entries(policies: Mapping[str, Policy]) -> dict[str, PolicyEntry]:
    return {name: policy_entry(policy) for name, policy in policies.items()}
