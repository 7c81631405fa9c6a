"""Which engine each stage runs: present, fallen back, missing, stale, damaged, rejected; and from build to classify."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import yaml

from backends.fakes import TARGET, FakeGpu, fake_gpu, put_engine, put_engines
from bundles import edit_manifest
from edge_reclass import bundle as bundles_module
from edge_reclass.cascade import Options, choose_policy, largest_batches
from edge_reclass.cli import commands as cli
from edge_reclass.engines.choice import GraphChoice, choose_engines, engine_states
from edge_reclass.engines.store import engines_folder
from edge_reclass.errors import EngineError
from export.engine_bundles import engine_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return engine_bundle(tmp_path / "bundle", "mert", "jmla", fma=True)


def choose(root: Path, folder: Path | None = None, batch: int = 4) -> dict[str, GraphChoice]:
    loaded = bundles_module.load(root)
    batches = largest_batches(loaded, choose_policy(loaded).stages, Options(batch=batch))
    return choose_engines(loaded, batches, TARGET, engines_folder(loaded.digest, folder))


def refused(root: Path, **options: Any) -> str:
    with pytest.raises(EngineError) as caught:
        choose(root, **options)
    return str(caught.value)


def test_the_preferred_engines(root: Path) -> None:
    stored = put_engines(root)
    choices = choose(root)
    assert set(choices) == {"mert", "jmla"}
    for name, choice in choices.items():
        assert (choice.device, choice.precision) == (None, "fp16")
        assert choice.file == stored[name].plan and choice.max_batch == 4
        assert choice.note.startswith("its engine is not verified: it is a fake; edge-reclass verify ")


def test_a_smaller_engine_limits_the_batch(root: Path) -> None:
    put_engine(root, "mert", "fp16", max_batch=3)
    put_engine(root, "jmla", "fp16", max_batch=16)
    choices = choose(root)
    assert (choices["mert"].max_batch, choices["jmla"].max_batch) == (3, 4)
    put_engine(root, "mert", "fp16", max_batch=8)
    assert choose(root)["mert"].max_batch == 4
    assert choose(root, batch=2)["mert"].max_batch == 2


def test_fp32_stands_in_and_says_for_what(root: Path) -> None:
    put_engines(root)
    put_engine(root, "mert", "fp16", rejected="batch 4: cosine 0.1")
    put_engine(root, "mert", "fp32")
    choice = choose(root)["mert"]
    assert (choice.device, choice.precision) == (None, "fp32")
    assert choice.note.startswith("fp32 instead of fp16, which is rejected: batch 4: cosine 0.1")


def test_all_rejected_runs_on_the_cpu_and_a_note_says_so(root: Path) -> None:
    put_engines(root)
    put_engine(root, "mert", "fp16", rejected="batch 4: cosine 0.1")
    put_engine(root, "mert", "fp32", rejected="the graph is not supported")
    choice = choose(root)["mert"]
    assert (choice.device, choice.precision, choice.max_batch) == ("cpu", "fp32", None)
    assert choice.file == bundles_module.load(root).file("encoders/mert.fp32.onnx")
    assert "on the CPU" in choice.note
    assert "fp16: batch 4: cosine 0.1; fp32: the graph is not supported" in choice.note


def test_rejected_and_missing_is_not_the_cpu(root: Path) -> None:
    put_engines(root)
    put_engine(root, "mert", "fp16", rejected="batch 4: cosine 0.1")
    text = refused(root)
    assert "stage mert: fp16 is rejected: batch 4: cosine 0.1; fp32 is missing" in text
    assert text.endswith(f"next: edge-reclass build {root} --stage mert")


def test_what_is_missing_names_every_stage_and_the_command(root: Path, tmp_path: Path) -> None:
    text = refused(root)
    assert "stage mert: fp16 is missing: no engine of mert fp16" in text and "stage jmla: fp16 is missing" in text
    assert text.endswith(f"next: edge-reclass build {root} --stage mert --stage jmla")
    elsewhere = tmp_path / "my engines"
    text = refused(root, folder=elsewhere)
    assert text.endswith(f"next: edge-reclass build {root} --stage mert --stage jmla --engines '{elsewhere}'")
    put_engines(root, engines_folder=elsewhere)
    assert set(choose(root, folder=elsewhere)) == {"mert", "jmla"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "10.2.0"}, "TensorRT version: built for 10.2.0, here 10.3.0"),
        ({"driver": "l4t-36.4.0"}, "driver: built for l4t-36.4.0, here l4t-36.4.3"),
    ],
)
def test_stale(root: Path, changes: dict[str, str], message: str) -> None:
    put_engines(root, target=msgspec.structs.replace(TARGET, **changes))
    text = refused(root)
    assert f"stage mert: fp16 is stale: {message}" in text
    assert text.endswith(f"edge-reclass build {root} --stage mert --stage jmla")


def test_damaged(root: Path) -> None:
    stored = put_engines(root)
    stored["jmla"].plan.write_bytes(b"x")
    text = refused(root)
    assert "stage jmla: fp16 is damaged" in text and "mert" not in text
    assert text.endswith(f"edge-reclass build {root} --stage jmla")


def test_states_for_the_doctor(root: Path) -> None:
    put_engine(root, "mert", "fp16", rejected="wrong numbers")
    put_engine(root, "mert", "fp32")
    put_engine(root, "jmla", "fp16", target=msgspec.structs.replace(TARGET, sm="8.9"))
    loaded = bundles_module.load(root)
    batches = largest_batches(loaded, ["mert", "jmla"])
    states = engine_states(loaded, batches, TARGET, engines_folder(loaded.digest, None))
    assert [(state.stage, state.precision, state.found.status) for state in states] == [
        ("mert", "fp16", "rejected"),
        ("mert", "fp32", "present"),
        ("jmla", "fp16", "stale"),
        ("jmla", "fp32", "missing"),
    ]
    assert states[0].found.reason == "wrong numbers" and "SM" in states[2].found.reason


COMMANDS = [
    EntryPoint("build", "edge_reclass_export.commands.build:build", cli.ENTRY_POINTS),
    EntryPoint("verify", "edge_reclass_export.commands.verify:verify", cli.ENTRY_POINTS),
]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``edge-reclass`` in this process; gives its exit status, stdout and stderr."""
    monkeypatch.setattr(cli, "entry_points", lambda group: COMMANDS)
    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))
    monkeypatch.delenv("EDGE_RECLASS_ENGINES", raising=False)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-reclass", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch, bindings=(request.param,)) as gpu:
        yield gpu


def test_build_verify_classify(gpu: FakeGpu, run: Run, tmp_path: Path) -> None:
    """The whole way on the fake GPU, with the real commands: the verdicts are the CPU's."""
    root = engine_bundle(tmp_path / "bundle", "mert", "jmla")
    manifest = yaml.safe_load((root / "bundle.yaml").read_text(encoding="utf-8"))
    manifest["policies"]["ladder"]["steps"][0]["accept"] = 1.0  # every stage is asked
    edit_manifest(root, policies=manifest["policies"])
    status, out, err = run("build", root)
    assert status == 0, err
    assert out.count("verified") == 2 and "fp16" in out
    status, out, err = run("verify", root, "--device", "tensorrt")
    assert status == 0, err
    verified = gpu.tensorrt.counts["execute_async_v3"]
    assert verified > 0
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32), 16_000)
    verdicts = {}
    for device in ("cpu", "tensorrt"):
        status, out, err = run("classify", "--format", "jsonl", "--device", device, "--bundle", root, clip)
        assert status == 0, err
        verdicts[device] = json.loads(out)
    assert [stage["name"] for stage in verdicts["cpu"]["stages"]] == ["mert", "jmla"]
    assert timeless(verdicts["tensorrt"]) == timeless(verdicts["cpu"])
    assert gpu.tensorrt.counts["execute_async_v3"] > verified


def timeless(plain: Any) -> Any:
    """A verdict without what it took."""
    if isinstance(plain, dict):
        return {
            key: timeless(value) for key, value in plain.items() if not key.endswith("milliseconds") and key != "at"
        }
    return [timeless(each) for each in plain] if isinstance(plain, list) else plain
