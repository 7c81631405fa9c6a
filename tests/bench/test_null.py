"""The null backend is a backend, and what it leaves over is counted right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.fakes import settings
from bundles import fma_stage, make_bundle, waveform_stage
from edge_reclass import Cascade
from edge_reclass.backends import Backend
from edge_reclass.bundle.loading import load
from edge_reclass.cascade.opening import Options
from edge_reclass.cascade.plan import choose_policy
from edge_reclass.errors import EngineError
from edge_reclass_bench.harness import null_outcome
from edge_reclass_bench.null_backend import NullBackend
from edge_reclass_bench.scenarios.context import Context
from edge_reclass_bench.scenarios.null import NullClassifier, null_policy, write_clip


def test_a_cascade_runs_on_it_without_opening_the_graph(tmp_path: Path) -> None:
    backend: Backend = NullBackend()
    root = make_bundle(tmp_path / "bundle", [waveform_stage("one")])
    write_clip(tmp_path / "a.wav", 16_000, 1)
    with Cascade.open(root, backend) as cascade:
        verdict = cascade.classify(tmp_path / "a.wav")
        assert cascade.device == "null"
    assert verdict.status == "ok"
    assert [part.name for part in verdict.stages[0].parts] == ["resample", "fill", "run", "head", "policy"]


def test_its_graph_keeps_the_life_cycle() -> None:
    graph = NullBackend().open_graph(
        Path("none.onnx"), input_name="x", output_name="y", width=10, output_width=3, max_batch=4
    )
    assert graph.input.shape == (4, 10)
    assert graph.run(2).shape == (2, 3)
    assert np.isfinite(graph.run(4)).all()
    assert graph.device_times() is None
    for batch in (0, 5):
        with pytest.raises(ValueError, match="batch of 1 to 4"):
            graph.run(batch)
    graph.close()
    with pytest.raises(EngineError, match="after close"):
        graph.run(1)


def test_it_takes_the_graph_that_needs_the_least(tmp_path: Path) -> None:
    stages = [fma_stage(), waveform_stage("fused", head={"inputs": ["fma", "fused"]}), waveform_stage("alone")]
    assert null_policy(load(make_bundle(tmp_path / "a", stages))).stages == ("alone",)
    assert null_policy(load(make_bundle(tmp_path / "b", stages[:2]))).stages == ("fma", "fused")
    assert null_policy(load(make_bundle(tmp_path / "c", stages[:1]))).stages == ("fma",)


def test_the_overhead_is_the_track_less_its_work(tmp_path: Path) -> None:
    bundle = load(make_bundle(tmp_path, [waveform_stage("one")]))
    context = Context(
        bundle, choose_policy(bundle), "cpu", Options(threads=1), (), settings(min_count=40, min_seconds=0.0)
    )
    outcome = null_outcome(context)
    assert outcome.warnings == []
    found = {(measure.subject, measure.part): measure for measure in outcome.measures}
    assert set(found) == {
        ("harness", "track"),
        ("harness", "loop"),
        ("cascade", "track"),
        ("cascade", "work"),
        ("cascade", "run"),
        ("cascade", "overhead"),
    }
    track, work, run, overhead = (found["cascade", name].samples for name in ("track", "work", "run", "overhead"))
    assert len(track) == 40
    assert [a + b + c for a, b, c in zip(work, run, overhead, strict=True)] == pytest.approx(track, abs=1e-5)
    assert all(value > 0 for value in overhead)
    assert all(not measure.tracks for measure in outcome.measures)  # its clips are none of the record's tracks


def test_the_null_classifier_always_says_the_same() -> None:
    nothing = NullClassifier()
    assert nothing.classify(Path("a")) is nothing.classify(Path("b"))
