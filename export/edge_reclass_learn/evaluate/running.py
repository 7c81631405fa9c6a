"""The real cascade on some of the tracks: how long they take, and whether devices and precisions say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edge_reclass import Bundle, Cascade, Verdict
from edge_reclass.backends import Backend, backend_of
from edge_reclass.cascade import Policy
from edge_reclass.errors import EdgeReclassError
from edge_reclass.host import usable_cpus
from edge_reclass_learn.evaluate.intervals import share
from edge_reclass_learn.evaluate.record import Agreement
from edge_reclass_learn.progress import Say

REFERENCE: Final = "fp32"


@dataclass(frozen=True)
class Ran:
    """What the cascade did. ``milliseconds``: median of a track that stops at a step of the policy, by its number."""

    agreements: Sequence[Agreement]
    milliseconds: Mapping[int, float]


def run(
    name: str,
    bundle: Bundle,
    policy: Policy,
    tracks: Sequence[Path],
    devices: Sequence[str],
    threads: int | None,
    say: Say,
) -> Ran:
    """Classify ``tracks`` on the CPU with FP32 graphs; then with every other precision there, and on ``devices``.

    What cannot be run on this machine has an agreement without figures, which says why.
    """
    files = {stage: bundle.manifest.stage(stage).encoder.graph_files for stage in policy.stages}
    graphs = {stage: sorted(found) for stage, found in files.items() if found}
    workers = threads or usable_cpus()

    def verdicts(what: str, device: str | Callable[[], Backend]) -> tuple[list[Verdict], dict[str, str]]:
        opened = device if isinstance(device, str) else device()
        with Cascade.open(bundle, opened, policy, threads=threads) as cascade:
            found = []
            for number, track in enumerate(tracks, start=1):
                say(f"{name} {what}: {number} of {len(tracks)}")
                found.append(cascade.classify(track))
            return found, {stage.name: stage.precision for stage in cascade.plan.stages if stage.precision}

    def others() -> Iterator[tuple[str, str, str | Callable[[], Backend]]]:
        """Device, what is said of it, and how it is opened."""
        precisions = sorted({one for found in graphs.values() for one in found})
        for device in ("cpu", *devices):
            if device == "tensorrt":  # runs the engines that were built, and no file of the bundle
                yield device, "its engines", device
                continue
            for precision in precisions:
                if (device, precision) != ("cpu", REFERENCE):
                    yield device, precision, partial(_with, device, precision, graphs, workers)

    missing = [stage for stage, found in graphs.items() if REFERENCE not in found]
    if missing:
        why = f"the bundle has no FP32 file of {', '.join(missing)} to compare with"
        return Ran([_not_run(name, device, {}, why) for device in dict.fromkeys(d for d, *_ in others())], {})
    reference, _ = verdicts(f"on cpu, {REFERENCE}", partial(backend_of, "cpu", REFERENCE, workers))
    found = []
    for device, what, way in others():
        try:
            said, precisions = verdicts(f"on {device}, {what}", way)
        except EdgeReclassError as error:
            wanted = {} if device == "tensorrt" else dict.fromkeys(graphs, what)
            found.append(_not_run(name, device, wanted, str(error)))
        else:
            found.append(_compared(name, device, precisions, reference, said))
    return Ran(found, _milliseconds(reference, policy))


def _not_run(name: str, device: str, precisions: dict[str, str], why: str) -> Agreement:
    return Agreement(bundle=name, device=device, precisions=precisions, same=None, max_difference=None, why_not=why)


def _with(device: str, precision: str, graphs: Mapping[str, Sequence[str]], threads: int) -> Backend:
    """A device that takes ``precision`` where a stage has it, else FP32."""
    made = backend_of(device, precision, threads)
    if any(precision not in found for found in graphs.values()):
        made.precisions = (precision, REFERENCE)
    return made


def _compared(
    name: str, device: str, precisions: dict[str, str], reference: Sequence[Verdict], said: Sequence[Verdict]
) -> Agreement:
    same = [(a.status, a.genre) == (b.status, b.genre) for a, b in zip(reference, said, strict=True)]
    gaps = [
        max(abs(score.score - theirs[score.genre]) for score in a.top)
        for a, b in zip(reference, said, strict=True)
        if a.top and (theirs := {score.genre: score.score for score in b.top})
    ]
    return Agreement(
        bundle=name,
        device=device,
        precisions=precisions,
        same=share(sum(same), len(same)),
        max_difference=max(gaps, default=None),
    )


def _milliseconds(verdicts: Sequence[Verdict], policy: Policy) -> dict[int, float]:
    """Decoding and all stages, by the number of the step at which tracks stop."""
    taken: dict[int, list[float]] = {}
    for one in verdicts:
        if one.confidence is None or not one.stages or (seen := one.stages[-1].windows) is None:
            continue
        number = stopped_at(policy, one.stages[-1].name, seen.heard if seen.heard < seen.of else None)
        total = (one.decode_milliseconds or 0.0) + sum(stage.milliseconds for stage in one.stages)
        taken.setdefault(number, []).append(total)
    return {number: float(np.median(some)) for number, some in taken.items()}


def stopped_at(policy: Policy, stage: str, windows: int | None) -> int:
    """The number of the step after so many windows of a stage; of its last step, where there is no such step."""
    last = max(i for i, step in enumerate(policy.steps) if step.after == stage)
    own = [i for i, step in enumerate(policy.steps) if (step.after, step.windows) == (stage, windows)]
    return own[0] if own else last
