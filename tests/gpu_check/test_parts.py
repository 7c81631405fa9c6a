"""The parts of the check: arithmetic counts, torch's fused attention, turns, policies, the page, a stage that dies."""

# ruff: noqa: E402 - torch is optional, and what follows needs it
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parts measure torch")
pytest.importorskip("transformers", reason="MERT's recipe needs transformers")

from torch.utils.flop_counter import FlopCounterMode

from edge_reclass.cascade.policy import check as check_policy
from edge_reclass_export.recipes.mert_checkpoint import RANDOM_CONFIGS
from edge_reclass_export.recipes.openjmla_checkpoint import FULL_SIZE
from gpu_check import parity, summary
from gpu_check.cascade import chains, policy, thresholds
from gpu_check.cli import STAGES, main
from gpu_check.contenders import with_sdpa
from gpu_check.encoders import rated
from gpu_check.geometry import Encoder, encoders, mert_flops, openjmla_flops
from gpu_check.inputs import batch_of
from gpu_check.settings import Settings
from gpu_check.timing import Samples, Times, by_turns
from gpu_check.tracks import library

TINY = Settings(Path("/nowhere"), Path("/nowhere"), "cpu", True)


@pytest.fixture(scope="module", params=["mert-95m", "openjmla", "mert-330m"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return next(one for one in encoders(TINY) if one.name == request.param)


def test_arithmetic_is_what_torch_counts(encoder: Encoder) -> None:
    module = encoder.module()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, encoder.window))
    assert encoder.flops == counter.get_total_flops()


def test_arithmetic_at_full_size_is_what_the_facts_say() -> None:
    """Per 30 s: six windows of MERT, one of OpenJMLA (facts/performance.md, two digits)."""
    assert 6 * mert_flops(RANDOM_CONFIGS["330m"], 120_000) == pytest.approx(1.66e12, rel=0.05)
    assert 6 * mert_flops(RANDOM_CONFIGS["95m"], 120_000) == pytest.approx(0.63e12, rel=0.05)
    assert openjmla_flops(FULL_SIZE) == pytest.approx(0.19e12, rel=0.05)


def test_fused_attention_is_used_and_gives_the_same(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.from_numpy(batch_of(encoder, 2))
    calls = 0
    real = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*arguments, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    plain, changed = encoder.module(), with_sdpa(encoder.module())
    with torch.inference_mode():
        eager = plain(inputs)
        assert calls == 0
        fused = changed(inputs)
    assert calls == 2  # layers
    assert torch.linalg.norm(fused - eager) <= 1e-4 * torch.linalg.norm(eager)


def test_a_network_without_attention_is_no_sdpa_contender(encoder: Encoder) -> None:
    module = encoder.module()
    module.body = torch.nn.Identity()
    with pytest.raises(ValueError, match="no attention"):
        with_sdpa(module)


def test_no_two_rows_of_a_batch_are_alike_or_silent(encoder: Encoder) -> None:
    rows = batch_of(encoder, 20)
    assert len(np.unique(rows, axis=0)) == 20 and (np.abs(rows).max(axis=1) > 0).all()


def test_the_worst_row_is_found_and_named() -> None:
    expected = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    order = [0, 1, 2, 0]
    got = expected[order].copy()
    got[3] *= -1.0
    found = parity.check("x", 2, order, got, expected, ["a", "b", "c"], "fp32")
    assert found["cosine"] == pytest.approx(-1.0) and found["relative"] == pytest.approx(2.0)
    assert found["worst_row"] == "a, row 1" and found["rows"] == 4
    assert found["verdict"].startswith("batch 2: cosine -1.0")


def test_a_row_that_nothing_wrote_is_found() -> None:
    """The second run at one batch size leaves a row of the reused result as it was."""

    class Lazy:
        input = np.zeros((4, 5), np.float32)

        def __init__(self) -> None:
            self.out = np.zeros((4, 3), np.float32)
            self.runs = 0

        def run(self, batch: int) -> Any:
            self.runs += 1
            written = batch if self.runs == 1 else batch - 1
            self.out[:written] = self.input[:written, :3]
            return self.out[:batch]

    inputs = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    order, got = parity.run_rows(Lazy(), inputs, 4)  # type: ignore[arg-type]
    assert order == list(range(8)) and np.isnan(got[7]).all() and not np.isnan(got[:7]).any()
    found = parity.check("x", 4, order, got, inputs[:, :3], [str(n) for n in range(8)], "fp16")
    assert found["worst_row"] == "7, row 3" and "no numbers" in found["verdict"]
    # What is written to the record has to be JSON.
    assert found["relative"] == 1e30


def test_turns_are_fair_and_bounded() -> None:
    order: list[str] = []

    def once(name: str) -> Times:
        order.append(name)
        return Times(1e-3, 5e-4 if name == "b" else None)

    samples = by_turns({name: lambda name=name: once(name) for name in "abc"}, 0.0)  # type: ignore[misc]
    assert order == list("abc") * 10
    plain = samples["b"].to_plain()
    assert plain["device_ms"] == 0.5 and plain["copy_in_ms"] is None and plain["runs"] == 10
    assert samples["a"].to_plain()["device_ms"] is None
    assert by_turns({}, 1.0) == {}


def test_rates_and_ratios() -> None:
    def made(host: float, device: float | None = None) -> Samples:
        samples = Samples()
        samples.add(Times(host, device))
        return samples

    timed = {"tensorrt fp16": made(2e-3, 1e-3), "torch sdpa fp16": made(4e-3, 3e-3), "cuda fp32": made(5e-3)}
    found = rated(timed, 2e9, {"fp16": 4.0}, {})
    ours = found["tensorrt fp16"]
    assert ours["torch_ratios"] == {"sdpa fp16": 2.0} and ours["torch_ratios_device"] == {"sdpa fp16": 3.0}
    assert ours["tflops"] == pytest.approx(2.0) and ours["of_ceiling"] == pytest.approx(0.5)
    assert found["cuda fp32"]["tflops_by"] == "host" and found["cuda fp32"]["of_ceiling"] is None
    assert found["cuda fp32"]["torch_ratios_device"] == {}
    assert found["torch sdpa fp16"]["torch_ratios"] == {}


def test_policies_fit_the_stages() -> None:
    assert chains(["fma", "mert-95m", "openjmla", "mert-330m"]) == [
        ("fma", "mert-95m", "openjmla"),
        ("fma", "mert-330m", "openjmla"),
    ]
    assert chains(["fma", "openjmla"]) == [("fma", "openjmla")]
    chain = ("fma", "mert-330m", "openjmla")
    accept = thresholds(chain, {"fma": [0.2, 0.4, 0.3], "mert-330m": [0.5, 0.7], "openjmla": [0.1]})
    assert accept == [0.3, 0.6]
    for made in (policy(chain), policy(chain, accept)):
        assert not check_policy(made, chain)
    assert [step.accept for step in policy(chain).steps] == [1.0, 1.0, None]


def test_a_library_is_made_once(tmp_path: Path) -> None:
    paths = library(tmp_path, 4, 0.5, workers=1)
    assert [path.suffix for path in paths] == [".wav", ".flac", ".mp3", ".wav"]
    content = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
    assert library(tmp_path, 4, 0.5, workers=1) == paths
    assert {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths} == content
    assert paths[0].read_bytes() != paths[3].read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_page_tells_failures_and_invents_nothing() -> None:
    record = {
        "stage": "verify",
        "label": "device: cuda",
        "status": "failed",
        "seconds": 3.0,
        "left": ["openjmla cuda fp32"],
        "error": "ended at its deadline (signal 9)",
        "items": {
            "a": {"status": "failed", "error": "EngineError: broken | pipe"},
            "b": {"status": "not here", "reason": "no engine"},
            "c": {"status": "crashed", "error": "signal 11"},
            "d": {"status": "wrong", "result": {"checks": [], "faults": ["batch 6: cosine 0.5"]}},
        },
    }
    page = summary.markdown({"stages": dict.fromkeys(STAGES) | {"verify": record}})
    assert "- a: failed: EngineError: broken | pipe" in page and "- b: not here: no engine" in page
    assert "- c: crashed: signal 11" in page and "- d: wrong: batch 6: cosine 0.5" in page
    assert "- openjmla cuda fp32: left for another call" in page
    assert "- the stage: ended at its deadline" in page and "| encoders | not run |" in page
    assert "nothing was measured" in page


def test_a_stage_that_dies_is_recorded_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In real processes: one stage kills itself in the middle of an item, the next finds nothing wrong."""
    package = tmp_path / "made_stages"
    package.mkdir()
    (package / "dies.py").write_text(
        "import os, signal\n"
        "def run(settings, journal):\n"
        "    journal.do('good', lambda: {'value': 1, 'unit': 'TFLOP/s'})\n"
        "    journal.do('bad', lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    (package / "lives.py").write_text("def run(settings, journal):\n    journal.do('one', lambda: {'value': 2})\n")
    (package / "sitecustomize.py").write_text(
        "import gpu_check.cli as cli\ncli.STAGES = {'ceilings': 'dies', 'export': 'lives'}\n"
    )
    root = Path(__file__).resolve().parents[2]
    path = [str(package), *(str(root / name) for name in ("runtime", "export", "benchmarks"))]
    monkeypatch.setenv("PYTHONPATH", ":".join(path))
    monkeypatch.setattr("gpu_check.cli.STAGES", {"ceilings": "dies", "export": "lives"})
    arguments = ["--state", str(tmp_path / "state"), "--out", str(tmp_path / "out"), "--device", "cpu", "--tiny"]
    assert main(arguments) == 1
    found = summary.collect(tmp_path / "state", ["ceilings", "export"])["stages"]
    assert found["ceilings"]["status"] == "failed" and "signal 9" in found["ceilings"]["error"]
    assert found["ceilings"]["items"]["good"]["status"] == "ok"
    assert found["ceilings"]["items"]["bad"]["status"] == "crashed"
    assert found["export"]["items"]["one"]["result"] == {"value": 2}
    assert "bad: crashed before" not in capsys.readouterr().out
    assert main(arguments) == 1
    assert "bad: crashed before, not tried again" in capsys.readouterr().out
    # Without time nothing is begun, and what was found stays.
    assert main([*arguments, "export", "--call-seconds", "2"]) == 0
    assert "export: not begun, this call has no time left" in capsys.readouterr().out
    assert summary.collect(tmp_path / "state", ["export"])["stages"]["export"] == found["export"]
