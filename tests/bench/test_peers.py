"""Contenders do one task in turn; what else the machine did is known; a file that fails is an error with its name."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from bench.fakes import FakeClock
from bundles import make_bundle, waveform_stage
from edge_reclass.bundle import load
from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.collector import Collector
from edge_reclass_bench.peers.clips import Clip
from edge_reclass_bench.peers.contest import OURS, Answer, Contender, Task, hold


def test_a_contest_takes_turns_and_says_what_else_the_machine_did() -> None:
    clock, order, collector = FakeClock(), [], Collector()

    def contender(name: str, seconds: float) -> Contender:
        def run(clip: int) -> Answer:
            order.append((name, clip))
            clock.sleep(seconds)
            return np.zeros(1)

        return Contender(name, name, run)

    task = Task("adding", "add", [4, 7], contender(OURS, 1.0), [contender("other", 3.0)])
    for event in hold(task, warm_up=1, repeats=2, clock=clock):
        collector.add(event, 0)
    ours, theirs = sorted(collector.measures, key=lambda measure: measure.samples)
    assert (ours.samples, ours.tracks) == ([1000.0] * 4, [4, 7, 4, 7])
    assert theirs.samples == [3000.0] * 4
    assert collector.peers[0].ours == ours.key
    (run,) = collector.runs
    assert (run.scenario, run.subject, run.warm_up, run.passes, run.count) == ("peers", "adding", 1, 2, 4)
    assert run.wall_seconds == pytest.approx(16.0)  # of what was measured alone
    assert run.other_cpu is not None
    assert run.host_peak_bytes is None  # torch's memory is not what the cascade needs


def test_a_file_without_an_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("librosa")
    from edge_reclass_bench.peers.tasks import file_task

    clip = Clip(0, tmp_path / "gone.wav", np.zeros(16_000, np.float32), 16_000)
    bundle = load(make_bundle(tmp_path, [waveform_stage("one")]))
    with ExitStack() as resources, pytest.raises(EdgeReclassError, match=r"gone\.wav: .* its status is missing"):
        file_task(bundle, [clip], 1, resources).ours.run(0)
