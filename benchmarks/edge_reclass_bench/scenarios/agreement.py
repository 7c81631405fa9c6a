"""``agreement``: on how many of the tracks each precision of each stage says the genre that FP32 says.

Every stage is asked alone. The reference is the FP32 file on the CPU. Beside it each file of the bundle is judged on
the device that the run uses, where that takes ONNX files, else on the CPU; and where the device runs engines, the
engine. The notes of the run say what was judged where. Without labels this is what a lower precision costs; with them,
compare accuracies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge_reclass.backends import Backend, backend_of
from edge_reclass.cascade import Plan, Policy
from edge_reclass.errors import EngineError
from edge_reclass_bench.opened import Opened
from edge_reclass_bench.policies import needs, single
from edge_reclass_bench.record import Absent, StageFile
from edge_reclass_bench.scenarios.context import Context, Event, Missing, Ran, Weighed

REFERENCE = "fp32"


def measure_agreement(context: Context) -> Iterator[Event]:
    """Emit one :class:`StageFile` per precision of every stage with a graph, and a run whose notes name the devices."""
    needed, notes, watch = needs(context.bundle.manifest), [], context.watch()
    with watch:
        for name in context.policy.stages:
            files = context.bundle.manifest.stage(name).encoder.graph_files
            if not files:
                continue
            policy = single(name, needed[name])
            if REFERENCE not in files:
                yield Missing(Absent(what=f"agreement of {name}", reason="the bundle has no FP32 file of it"))
                continue
            reference, _ = _genres(context, policy, backend_of("cpu", REFERENCE, context.threads))
            for precision, file in files.items():
                size = context.bundle.file(file).path.stat().st_size
                said, note = reference, "on cpu"
                if (precision, context.device) != (REFERENCE, "cpu"):
                    said, note = _judged(context, policy, precision, reference)
                notes.append(f"{name} {precision}: {note}")
                yield Weighed(_compared(name, precision, size, "onnx", reference, said))
            if context.device == "tensorrt":
                said, plan = _genres(context, policy, context.device)
                stage = plan.stages[-1]
                if isinstance(stage.graph, Path) and stage.precision is not None:
                    size = stage.graph.stat().st_size
                    notes.append(f"{name} {stage.precision}, engine: on {context.device}")
                    yield Weighed(_compared(name, stage.precision, size, "engine", reference, said))
    if notes:
        count = len(notes)
        yield Ran(watch.run("agreement", "cascade", warm_up=0, passes=1, count=count, notes=notes, memory=False))


def _judged(
    context: Context, policy: Policy, precision: str, reference: list[str | None]
) -> tuple[list[str | None], str]:
    """What the file of this precision says, and where: the run's device if that can open it, else the CPU."""
    why = "tensorrt runs engines alone"
    if context.device != "tensorrt":
        try:
            backend = backend_of(context.device, precision, context.threads)
            return _genres(context, policy, backend)[0], f"on {context.device}"
        except EngineError as error:
            if context.device == "cpu":
                raise
            why = str(error)
    if precision == REFERENCE:
        return reference, f"on cpu ({why})"
    return _genres(context, policy, backend_of("cpu", precision, context.threads))[0], f"on cpu ({why})"


def _genres(context: Context, policy: Policy, device: str | Backend) -> tuple[list[str | None], Plan]:
    options = replace(context.options, timed=False)
    with Opened(context.bundle, device, policy, options) as opened:
        cascade = opened.cascade(policy)
        return [cascade.classify(path).genre for path in context.paths], opened.plan


def _compared(
    stage: str, precision: str, size: int, kind: str, reference: list[str | None], said: list[str | None]
) -> StageFile:
    pairs = [(a, b) for a, b in zip(reference, said, strict=True) if a is not None]
    return StageFile(
        stage=stage,
        precision=precision,
        bytes=size,
        kind=kind,  # type: ignore[arg-type]
        agrees=sum(a == b for a, b in pairs),
        of=len(pairs),
    )


def bound(files: list[StageFile]) -> Iterator[tuple[StageFile, float]]:
    """Each file that was compared, with the lower 95 % bound of its agreement (Clopper and Pearson, one-sided)."""
    from scipy.stats import binomtest

    for file in files:
        if file.agrees is not None and file.of:
            test = binomtest(file.agrees, file.of, alternative="greater")
            yield file, float(test.proportion_ci(0.95, method="exact").low)
