"""The whole script on the CPU with tiny networks: every stage, its record, the page, and what a second call does.

One call for all tests: it is the stages' own processes that take the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge_reclass.errors import DeviceError
from edge_reclass.host.gpu import probe_gpu

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"
NEEDED = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "safetensors")
STAGES = ("setup", "ceilings", "export", "build", "verify", "encoders", "cascade", "tests")

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED),
    reason=f"the script exports networks and measures torch: it needs {', '.join(NEEDED)}",
)


@dataclass(frozen=True)
class Call:
    """One finished call of the script."""

    code: int
    said: str
    out: Path

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "gpu_check.json").read_text())
        return found


def call(state: Path, out: Path, *arguments: str) -> Call:
    done = subprocess.run(
        [str(SCRIPT), *arguments, "--state", str(state), "--out", str(out)],
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Call(done.returncode, done.stdout, out)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu_check") / "state"


@pytest.fixture(scope="module")
def first(state: Path) -> Call:
    arguments = ("--device", "cpu", "--tiny", "--encoders", "mert-330m", "--batches", "1,3", "--tracks", "3")
    return call(state, state.parent / "out", *arguments, "--jobs", "2", "--seconds", "0.02")


def items(finished: Call, stage: str) -> dict[str, Any]:
    record = finished.results["stages"][stage]
    assert record["label"] == "device: cpu, tiny: a test of the script, not a measurement"
    found: dict[str, Any] = record["items"]
    return found


def test_every_stage_runs_and_says_that_it_measured_nothing(first: Call) -> None:
    assert first.code == 0, first.said
    statuses = {name: record["status"] for name, record in first.results["stages"].items()}
    assert set(statuses) == set(STAGES)
    assert set(statuses.values()) <= {"ok", "not here"}, first.said
    page = (first.out / "gpu_check.md").read_text()
    assert "**device: cpu, tiny: a test of the script, not a measurement**" in page
    assert all(f"## {name}" in page for name in STAGES)


def test_three_files_come_back(first: Call) -> None:
    assert sorted(path.name for path in first.out.iterdir()) == ["gpu_check.json", "gpu_check.log", "gpu_check.md"]


def test_ceilings_keep_their_samples_and_name_what_a_cpu_lacks(first: Call) -> None:
    found = items(first, "ceilings")
    assert found["matmul fp32"]["result"]["value"] > 0 and len(found["matmul fp32"]["result"]["samples"]) == 3
    assert found["matmul tf32"]["status"] == "not here"
    assert found["copy host to device, pinned"]["status"] == "not here"


def test_both_precisions_agree_with_both_references_at_every_batch(first: Call) -> None:
    for precision, bound in (("fp32", 1e-4), ("fp16", 1e-2)):
        checks = items(first, "verify")[f"mert-330m cpu {precision}"]["result"]["checks"]
        assert [(check["batch"], check["against"]) for check in checks] == [
            (batch, against) for batch in (1, 3) for against in ("reference vectors", "float32 torch on cpu")
        ]
        assert all(0 <= check["relative"] < bound and check["verdict"] == "yes" for check in checks)
        # Eight reference inputs and eight fresh ones, and as many again as fill the last batch.
        assert [check["rows"] for check in checks] == [8, 16, 10, 18]


def test_the_encoder_is_held_against_torch_and_the_ceiling(first: Call) -> None:
    found = items(first, "encoders")
    assert set(found) == {"mert-330m 1", "mert-330m 3"}
    for item in found.values():
        contenders = item["result"]["contenders"]
        assert set(contenders) == {
            *("cpu fp16", "cpu fp32", "torch eager fp32", "torch eager fp16", "torch sdpa fp16", "torch compile fp16")
        }
        for name, one in contenders.items():
            assert one["host_ms"] > 0 and one["device_ms"] is None and one["tflops_by"] == "host", name
            assert len(one["samples"]["host"]) == one["runs"] >= 3
            assert one["against_float32_torch"]["relative"] < 2e-2, name
        ours = contenders["cpu fp32"]
        assert ours["torch_ratios"]["sdpa fp16"] == pytest.approx(
            contenders["torch sdpa fp16"]["host_ms"] / ours["host_ms"], rel=1e-3
        )
        ceiling = items(first, "ceilings")["matmul fp32"]["result"]["value"]
        assert ours["of_ceiling"] == pytest.approx(
            item["result"]["flops"] / (ours["host_ms"] / 1e3) / 1e12 / ceiling, rel=1e-6
        )


def test_the_cascade_says_who_decided(first: Call) -> None:
    found = items(first, "cascade")
    every = found["cpu, fma → mert-330m, all, 2 lanes"]["result"]
    assert every["decided_by"] == {"fma": 0.0, "mert-330m": 1.0}
    early = found["cpu, fma → mert-330m, early exit, 2 lanes"]["result"]
    assert sum(early["decided_by"].values()) == pytest.approx(1.0) and early["decided_by"]["fma"] > 0
    for one in (every, early):
        assert one["tracks_per_minute"] == pytest.approx(60 * one["tracks"] / one["seconds"])
        assert set(one["statuses"]) == {"ok"} and set(one["stage_ms"]) <= {"fma", "mert-330m"}


def test_the_projects_gpu_tests_ran_or_said_why_not(first: Call) -> None:
    result = items(first, "tests")["tests/backends/test_on_gpu.py -k gpu"]["result"]
    assert result["failed"] == 0 and result["passed"] + result["skipped"] > 0
    assert all(reason for reason in result["skips"].values())


def test_a_second_call_does_nothing_twice(first: Call, state: Path) -> None:
    again = call(state, state.parent / "again", "ceilings", "--device", "cpu", "--tiny")
    assert again.code == 0 and "matmul fp32: done before" in again.said
    assert again.results["stages"]["ceilings"]["items"] == items(first, "ceilings")
    # What other stages found earlier comes back too.
    assert again.results["stages"]["encoders"] == first.results["stages"]["encoders"]


def test_a_tiny_state_is_not_gone_on_with_as_a_real_one(first: Call, state: Path) -> None:
    mixed = call(state, state.parent / "mixed", "ceilings", "--device", "cpu")
    assert mixed.code == 2 and "was begun with --device cpu --tiny" in mixed.said


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    try:
        probe_gpu()
    except DeviceError:
        pass
    else:
        pytest.skip("there is a GPU here")
    refused = call(tmp_path / "state", tmp_path / "out", "setup", "ceilings", "--device", "cuda")
    assert refused.code == 5
    assert "no NVIDIA GPU" in refused.said and "the other stages are not begun" in refused.said
    assert refused.results["stages"]["ceilings"] is None


def test_results_alone_make_the_page_again(first: Call, tmp_path: Path) -> None:
    """On another machine, where only gpu_check.json came back."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "gpu_check.json").write_text((first.out / "gpu_check.json").read_text())
    made = call(kept, tmp_path / "page", "summary", "--device", "cpu", "--tiny")
    assert made.code == 0
    assert (made.out / "gpu_check.md").read_text() == (first.out / "gpu_check.md").read_text()


def test_an_unknown_stage_or_encoder_is_named(tmp_path: Path) -> None:
    wrong = call(tmp_path / "state", tmp_path / "out", "everything", "--device", "cpu", "--tiny")
    assert wrong.code == 2 and "no stage everything" in wrong.said
