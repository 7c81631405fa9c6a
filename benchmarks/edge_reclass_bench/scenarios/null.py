"""What is left when nothing is done: the harness's overhead, and the cascade's.

Its tracks are none of the record's, so that its samples have no track numbers.

``harness`` is the measuring loop around a classifier that returns a ready verdict: what stands in every ``track`` time
though nobody worked (``track``), and what the loop takes per track outside of it (``loop``), which is in no sample but
in wall time and throughput.

``cascade`` is a true cascade on a device that answers at once (:class:`NullBackend`), over tracks of one second at the
stage's own rate: ``track`` is decode to verdict, ``work`` what decode, resampling, features, filling and head account
for, ``run`` the calls of the null device, and ``overhead`` the rest: excerpts, policy, verdict. Of a real cascade's
track time, ``overhead`` is what the cascade itself costs.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Options, Policy
from edge_reclass.errors import Status
from edge_reclass.verdict import Part, Verdict
from edge_reclass_bench.clocks import Goal
from edge_reclass_bench.null_backend import NullBackend
from edge_reclass_bench.opened import Opened
from edge_reclass_bench.policies import needs, single
from edge_reclass_bench.scenarios.context import Collector, Context, Key, Outcome
from edge_reclass_bench.scenarios.latency import Classifier, Taken, one_pass

__all__ = ["NullClassifier", "measure_null", "null_policy", "write_clip"]

SECONDS = 1.0
_PASSES = 100
_WORK = ("resample", "features", "fill", "head")


class NullClassifier:
    """Does nothing, and says so."""

    def __init__(self) -> None:
        self._verdict = Verdict("<null>", Status.OK, "null", "null", decode_milliseconds=0.0)

    def classify(self, path: Path) -> Verdict:
        """The same verdict for every path."""
        del path
        return self._verdict


def null_policy(bundle: Bundle) -> Policy:
    """The stage with a graph whose head needs the fewest other stages, alone; a bundle without graphs: its first."""
    needed = needs(bundle.manifest)
    stages = bundle.manifest.stages
    graphs = [stage.name for stage in stages if stage.encoder.graph_files]
    name = min(graphs or [stages[0].name], key=lambda stage: len(needed[stage]))
    return single(name, needed[name])


def write_clip(path: Path, rate: int, seed: int) -> None:
    """A second of noise, 16 bits, mono, that no stage takes for silence."""
    noise = np.random.default_rng(seed).normal(0, 3000, int(rate * SECONDS)).clip(-32000, 32000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(noise.tobytes())


def measure_null(context: Context) -> Outcome:
    """Measure both; ``context.paths`` are tracks made by :func:`write_clip`."""
    collector = Collector()
    _harness(context, collector)
    options = Options(threads=1, batch=context.options.batch, allow_random=True)
    with (
        Opened(context.bundle, NullBackend(), context.policy, options) as opened,
        opened.cascade(context.policy) as cascade,
    ):
        for _ in range(max(1, context.settings.warm_up)):
            taken = one_pass(context, cascade, range(len(context.paths)))
        _cascade(context, cascade, collector)
    failed = [verdict for verdict in taken.verdicts if verdict.status != "ok"]
    warnings = [f"null: {verdict.path}: {verdict.status}: {verdict.error}" for verdict in failed[:3]]
    return Outcome(collector.measures(context.settings), warnings=warnings)


def _harness(context: Context, collector: Collector) -> None:
    paths = range(len(context.paths))
    classifier = NullClassifier()
    one_pass(context, classifier, paths)
    # By count alone, and a sample per pass: in a second a loop that does nothing takes a million samples.
    for number in range(max(_PASSES, -(-context.settings.min_count // len(paths)))):
        began = context.clock()
        taken = one_pass(context, classifier, paths)
        wall = context.clock() - began
        collector.add(Key("null", "harness", "track"), sum(taken.seconds) / len(paths) * 1e3, number)
        collector.add(Key("null", "harness", "loop"), (wall - sum(taken.seconds)) / len(paths) * 1e3, number)


def _cascade(context: Context, cascade: Classifier, collector: Collector) -> None:
    goal, number = Goal(context.settings.min_count, context.settings.min_seconds), 0
    while not goal.met:
        taken: Taken = one_pass(context, cascade, range(len(context.paths)))
        for _, verdict, seconds, _ in taken.answered():
            parts = [part for report in verdict.stages for part in report.parts if part.clock == "host"]
            work = _sum(parts, _WORK) + (verdict.decode_milliseconds or 0.0)
            run = _sum(parts, ("run",))
            for name, value in (
                ("track", seconds * 1e3),
                ("work", work),
                ("run", run),
                ("overhead", seconds * 1e3 - work - run),
            ):
                collector.add(Key("null", "cascade", name), value, number)
        goal.add(len(context.paths), sum(taken.seconds))
        number += 1


def _sum(parts: Sequence[Part], names: Sequence[str]) -> float:
    return sum(part.milliseconds for part in parts if part.name in names)
