"""A base bundle with one stage alone: what a fit to vectors of that stage can make heads for.

Vectors say nothing of what the other stages would have heard. So the new bundle has that stage, one head that takes its
embedding, and one policy with one step, after all windows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from msgspec.structs import replace as with_changes

from edge_reclass import Bundle
from edge_reclass.bundle import ExcerptEntry, Fma518Entry, HeadEntry, PolicyEntry, StageEntry, StepEntry
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_COUNT
from edge_reclass_learn.data.features import Vectors

POLICY: Final = "alone"
_FMA_RATE: Final = 44_100
"""Hz, of FMA's tracks."""


def alone(base: Bundle, vectors: Vectors, asked: str | None, where: str) -> Bundle:
    """``base`` with the stage alone that made ``vectors``.

    Args:
        asked: name of the stage, as the user says
        where: name of the data, for messages

    FMA's published features are not what the starter's first stage hears (windows of 3 s at 20 kHz, brought to one
    level): for them the stage is made anew, for whole tracks at 44.1 kHz. It has no range test: made signals would be
    told from the table by what librosa 0.5 did differently.

    Raises:
        UsageError: nothing says which stage it is, or it does not fit.
    """
    if vectors.published:
        if asked is not None:
            raise UsageError(f"--stage {asked}: FMA's published features are of no stage of a bundle; leave it out")
        head = HeadEntry("heads/fma.onnx", ["fma"])
        stage = StageEntry("fma", Fma518Entry(_FMA_RATE), head, ExcerptEntry(full=True))
    else:
        found = _stage(base, vectors, asked, where)
        test = found.head.range if found.head.range is not None and found.head.range.inputs == [found.name] else None
        stage = with_changes(found, head=with_changes(found.head, inputs=[found.name], range=test))
    manifest = with_changes(
        base.manifest,
        stages=[stage],
        policies={POLICY: PolicyEntry("soft", [StepEntry(stage.name, {stage.name: 1.0})])},
        default_policy=POLICY,
    )
    return replace(base, manifest=manifest)


def _stage(base: Bundle, vectors: Vectors, asked: str | None, where: str) -> StageEntry:
    width = vectors.rows.shape[1]
    if asked is not None and vectors.stage is not None and asked != vectors.stage:
        raise UsageError(f"{where}: it says that stage {vectors.stage} made its vectors, --stage says {asked}")
    name = asked or vectors.stage
    stages = {stage.name: stage for stage in base.manifest.stages}
    sizes = ", ".join(f"{one} ({stage.encoder.dim})" for one, stage in stages.items())
    if name is None:
        fitting = [one for one, stage in stages.items() if stage.encoder.dim == width]
        if len(fitting) != 1:
            raise UsageError(
                f"{where}: expected vectors of one of the stages {sizes}, got {width} values each; say with --stage"
                " whose they are, or give the --bundle whose encoder made them"
            )
        name = fitting[0]
    if name not in stages:
        raise UsageError(f"{where}: expected one of the stages {sizes} of {base.name}, got {name}")
    if stages[name].encoder.dim != width:
        raise UsageError(f"{where}: expected vectors of one of the stages {sizes}, got {width} values for {name}")
    if width == FEATURE_COUNT and vectors.unscaled:
        raise UsageError(
            f"{where}: rmse/mean is above 1 in the middle, so these are FMA's published features, which no stage of a"
            " bundle hears; give features.csv with tracks.csv beside it"
        )
    return stages[name]
