"""The whole check on the CPU with tiny networks, from carried graphs; a kill in the middle; what is called wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("torch", reason="the check measures torch")

from edge_reclass.bundle import load
from edge_reclass_bench.conduct import process_events
from edge_reclass_bench.record import Measure
from edge_reclass_bench.record import load as load_record
from gpu_check import summary
from gpu_check.encoders import shares, too_fast
from gpu_check.filled import fill, weight
from gpu_check.journal import Begun, Event, Item, Journal, Settings, StageTask, latest, read

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ROOT / "tests" / "data" / "gpu_check"
STAGES = ["setup", "ceilings", "openjmla", "mert-95m", "cascade", "mert-330m", "compile"]


def command(state: Path, out: Path, *arguments: str) -> list[str]:
    script = str(ROOT / "benchmarks" / "gpu_check.sh")
    return [script, "--device", "cpu", "--tiny", "--state", str(state), "--out", str(out), *arguments]


def call(state: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = command(state, out, *arguments)
    return subprocess.run(done, env=environment(), capture_output=True, text=True, check=False)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHON": sys.executable}


def items(out: Path) -> dict[tuple[str, str], Item]:
    return {(item.stage, item.name): item for item in latest(list(read(out / "gpu_check.jsonl")))}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a call that was killed while it was at the first encoder."""
    folder = tmp_path_factory.mktemp("gpu_check")
    started = command(folder / "state", folder / "out")
    with subprocess.Popen(started, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "fill cascade: ok" in line:
                break
        os.kill(process.pid, signal.SIGKILL)
    return folder


@pytest.fixture(scope="module")
def finished(cut: Path) -> Path:
    """The same, gone on with to its end."""
    before = {key: item for key, item in items(cut / "out").items() if item.status == "ok" and key[0] != "setup"}
    assert ("openjmla", "fill cascade") in before and len(before) < 10
    done = call(cut / "state", cut / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    after = items(cut / "out")
    assert all(after[key] == item for key, item in before.items()), "what was done was done again"
    return cut


def test_a_kill_loses_the_item_in_progress_and_the_next_call_goes_on(finished: Path) -> None:
    found = items(finished / "out")
    assert list(dict.fromkeys(stage for stage, _ in found)) == STAGES
    assert {item.status for item in found.values()} == {"ok", "not here"}
    assert {name for (_, name), item in found.items() if item.status == "not here"} == {
        *("matmul tf32", "copy host to device, pinned", "copy host to device, pageable", "copy device to host, pinned")
    }


def test_every_graph_is_right_and_everybody_does_the_same_work(finished: Path) -> None:
    found = items(finished / "out")
    for name in ("openjmla", "mert-95m", "mert-330m"):
        for precision, most in (("fp32", 1e-4), ("fp16", 1e-2)):
            checks = found[name, f"{name} cpu {precision} parity"].checks
            seen = [(c.batch, c.against, c.rows) for c in checks]
            here = f"CPU here, {precision}"
            assert seen == [(2, "reference vectors", 8), (2, here, 16), (3, "reference vectors", 10), (3, here, 18)]
            assert all(check.relative < most and not check.wrong for check in checks)
        for batch in (2, 3):
            item = found[name, f"{name} cpu batch {batch}"]
            torch = ["torch eager", "torch sdpa"]
            assert [share.contender for share in item.shares] == ["edge-reclass", "ONNX Runtime", *torch], item.facts
            assert all(0 < share.ceilings["one large product"] <= 1 for share in item.shares)
            assert all(measure.clock == "host" and len(measure.samples) >= 5 for measure in item.measures)


def test_the_cascade_leaves_records_of_bench_run(finished: Path) -> None:
    for policy in ("thorough", "early-exit"):
        record = load_record(finished / "out" / f"cascade-cpu-{policy}.json")
        assert next(record.find(part="throughput")).samples and all(track.status == "ok" for track in record.tracks)


def test_the_page_can_be_made_from_the_journal_alone(finished: Path, tmp_path: Path) -> None:
    page = (finished / "out" / "gpu_check.md").read_text()
    assert "a test of the script, not a measurement" in page and "## Parity" in page and "## Times" in page
    shutil.copy(finished / "out" / "gpu_check.jsonl", tmp_path / "alone.jsonl")
    done = call(tmp_path / "none", tmp_path / "out", "--summary", str(tmp_path / "alone.jsonl"))
    assert done.returncode == 0 and (tmp_path / "out" / "gpu_check.md").read_text() == page


def test_states_are_not_mixed_and_time_that_is_over_is_said(finished: Path, tmp_path: Path) -> None:
    state = shutil.copytree(finished / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.onnx"))
    late = call(state, tmp_path / "late", "ceilings", "--call-seconds", "1")
    assert late.returncode == 0
    assert items(tmp_path / "late")["ceilings", "all"].reason == "the call's time is over"
    other = command(state, tmp_path / "other")
    other.remove("--tiny")
    refused = subprocess.run(other, env=environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "networks of full size" in refused.stderr


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    arguments = [
        *command(tmp_path / "s", tmp_path / "o")[:1],
        "--state",
        str(tmp_path / "s"),
        "--out",
        str(tmp_path / "o"),
    ]
    done = subprocess.run(
        arguments, env=environment() | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 5:
        pytest.skip("there is a GPU here")
    assert "no NVIDIA GPU" in done.stderr and "--device cpu --tiny" in done.stderr


def settings(tmp_path: Path, **changes: Any) -> Settings:
    plain: dict[str, Any] = {
        "state": str(tmp_path / "state"),
        "out": str(tmp_path / "out"),
        "device": "cpu",
        "tiny": True,
        "graphs": str(GRAPHS),
        "batches": [2],
        "seconds": 0.01,
        "jobs": 1,
        "deadline": time.time() + 600,
    }
    return Settings(**{**plain, **changes})


def test_a_spoilt_weight_is_found(tmp_path: Path) -> None:
    """One tensor of the FP16 graph is another: the CPU here agrees with itself, the reference does not."""
    bundle = tmp_path / "state" / "mert-330m"
    fill(GRAPHS / "mert-330m.tar.xz", bundle)
    file = bundle / "encoders" / "mert-330m.fp16.onnx"
    model = onnx.load(file)
    spoilt = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(spoilt)
    spoilt.CopyFrom(numpy_helper.from_array(values[::-1].copy(), spoilt.name))
    onnx.save(model, file)
    digest = load(bundle).manifest.files["encoders/mert-330m.fp16.onnx"].sha256
    manifest = (bundle / "bundle.yaml").read_text()
    (bundle / "bundle.yaml").write_text(manifest.replace(digest, hashlib.sha256(file.read_bytes()).hexdigest()))
    task = StageTask(stage="mert-330m", settings=settings(tmp_path), done=[], values={})
    found = {e.name: e for e in process_events("gpu_check.worker", task, Event) if isinstance(e, Item)}
    assert found["mert-330m cpu fp16 parity"].status == "wrong"
    assert "against reference vectors: cosine" in found["mert-330m cpu fp16 parity"].reason
    assert found["mert-330m cpu fp32 parity"].status == "ok"


def test_filling_is_exact_and_needs_no_library_of_chance(tmp_path: Path) -> None:
    assert fill(GRAPHS / "mert-330m.tar.xz", tmp_path / "bundle") == []
    load(tmp_path / "bundle").verify()
    values = weight("a:b", (3, 400), 0.02)
    assert values.dtype == np.float32 and abs(values.mean()) < 1e-3 and values.std() == pytest.approx(0.02, rel=0.05)
    assert values[0, :2].tolist() == [0.018460972234606743, -0.02863152138888836]
    assert not np.array_equal(values, weight("a:c", (3, 400), 0.02))


def measure(subject: str, clock: Any, *samples: float) -> Measure:
    plain: dict[str, Any] = {"scenario": "peers", "part": "encoder", "unit": "ms"}
    numbers = list(range(len(samples)))
    return Measure(
        subject=subject, clock=clock, samples=list(samples), passes=numbers, processes=[0] * len(samples), **plain
    )


def test_a_share_above_100_percent_is_wrong(tmp_path: Path) -> None:
    taken = [measure("a", "host", 4.0, 5.0, 6.0), measure("a", "device", 1.0, 2.0, 3.0), measure("b", "host", 10.0)]
    found = shares(taken, tflop=1.0, products_ms=3.0, matmul=600.0)
    assert [(s.contender, s.clock, s.milliseconds, s.host_milliseconds, s.tflops) for s in found] == [
        ("a", "device", 2.0, 5.0, 500.0),
        ("b", "host", 10.0, 10.0, 100.0),
    ]
    assert too_fast(found) == "a: 150 % of its own products" and not too_fast(found[1:])
    wrong = Item(stage="openjmla", name="batch", status="wrong", reason=too_fast(found), shares=found)
    assert summary.bad([wrong]) and "150 % of its own products" in summary.write([wrong], tmp_path)
    assert not any(share.ceilings for share in shares(taken, None, None, None))


def test_a_stage_that_hangs_or_dies_is_killed_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The processes are real; the stages are made, and the deadline comes as soon as one hangs."""
    from gpu_check import cli

    hung, asked = tmp_path / "hung", []

    class Deadline(threading.Timer):
        def run(self) -> None:
            asked.append(self.interval)
            while not hung.exists() and not self.finished.wait(0.02):
                pass
            self.interval = 0.0
            super().run()

    def now() -> float:
        return time.time() + (10_000 if hung.exists() else 0)

    (tmp_path / "made").mkdir()
    body = "def run(work):\n    yield from work.do('good', dict)\n    yield from work.do('bad', lambda: {})\n"
    (tmp_path / "made" / "hangs.py").write_text(
        "import pathlib, time\n"
        + body.replace("lambda: {}", f"lambda: [pathlib.Path({str(hung)!r}).touch(), time.sleep(600)]")
    )
    (tmp_path / "made" / "dies.py").write_text("import os\n" + body.replace("lambda: {}", "lambda: os.abort()"))
    (tmp_path / "made" / "sitecustomize.py").write_text(
        "import gpu_check\ngpu_check.STAGES.update(hangs='hangs', dies='dies')\n"
    )
    path = [str(tmp_path / "made"), *(str(ROOT / name) for name in ("runtime", "export", "benchmarks"))]
    monkeypatch.setenv("PYTHONPATH", ":".join(path))
    monkeypatch.setattr("edge_reclass_bench.conduct.threading.Timer", Deadline)
    monkeypatch.setattr(cli, "time", SimpleNamespace(time=now, monotonic=time.monotonic))
    journal = Journal(tmp_path / "state", tmp_path / "out")
    for stage in ("dies", "hangs"):
        cli._stage(journal, settings(tmp_path, deadline=time.time() + 600), stage)
    assert all(0 < seconds - cli._GRACE <= 600 for seconds in asked) and len(asked) == 2
    found = {(item.stage, item.name): item for item in latest(journal.lines)}
    assert found["dies", "good"].status == found["hangs", "good"].status == "ok"
    assert "signal 6" in found["dies", "bad"].reason and found["dies", "bad"].status == "crashed"
    assert "not done at the deadline" in found["hangs", "bad"].reason
    assert journal.task("dies", settings(tmp_path)).done == ["good", "bad"]
    assert "crashed" in capsys.readouterr().out


def test_a_cut_line_is_left_out_and_what_was_begun_is_left(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state", tmp_path / "out")
    journal.add(Item(stage="a", name="one", status="ok", values={"x": 1.0}))
    journal.add(Begun(stage="a", name="two"))
    with (tmp_path / "state" / "gpu_check.jsonl").open("ab") as file:
        file.write(b'{"type":"Item","stage":"a","na')
    again = Journal(tmp_path / "state", tmp_path / "other")
    assert [(item.name, item.status) for item in latest(again.lines)] == [("one", "ok"), ("two", "left")]
    task = again.task("a", settings(tmp_path))
    assert (task.done, task.values) == (["one"], {"x": 1.0})
    assert all(json.loads(line) for line in (tmp_path / "other" / "gpu_check.jsonl").read_text().splitlines())
