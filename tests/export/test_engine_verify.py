"""Comparing a device with the reference vectors: at which batch, in which row, and whether a genre would change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

import bundles
from edge_reclass import bundle as bundles_module
from edge_reclass import host
from edge_reclass.backends import base
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle.loading import Bundle
from edge_reclass.engines.record import BatchCheck
from edge_reclass.errors import BundleError, DeviceError, EngineError, UsageError
from edge_reclass_export.commands.verify import verify
from edge_reclass_export.engine.verify import (
    Expected,
    check_graph,
    faults,
    head_notes,
    open_heads,
    reference_expected,
)
from export.engine_bundles import DIM, engine_bundle, refresh_hashes, write_head
from export.fake_device import FakeDevice
from export.test_engine_build import ORIN, Setup, damage, fake_tensorrt, wrong_at

__all__ = ["fake_tensorrt"]


def run(*arguments: str | Path) -> Result:
    """The command as the command line mounts it; errors raised on purpose come out."""
    import typer

    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(verify)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(result: Result) -> list[list[str]]:
    """The lines about encoders alone."""
    return [line.split() for line in result.stdout.splitlines()[1:] if " cascade " not in line]


class Table:
    """A graph that answers from a table, and notes in which batches it was run."""

    def __init__(self, expected: Expected, max_batch: int, spoil: Callable[[int, np.ndarray], None] | None = None):
        self._expected, self._spoil = expected, spoil
        self.input = np.zeros((max_batch, expected.inputs.shape[1]), np.float32)
        self._output = np.zeros((max_batch, expected.embedding.shape[1]), np.float32)
        self.batches: list[int] = []

    def run(self, batch: int) -> np.ndarray:
        self.batches.append(batch)
        for i in range(batch):
            (match,) = np.flatnonzero((self._expected.inputs == self.input[i]).all(axis=1))
            self._output[i] = self._expected.embedding[match]
        if self._spoil is not None:
            self._spoil(batch, self._output)
        return self._output[:batch]

    def close(self) -> None:
        pass


RANDOM = np.random.default_rng(0)
EXPECTED = Expected(RANDOM.standard_normal((8, 6)).astype("f4"), RANDOM.standard_normal((8, 5)).astype("f4"))


@pytest.mark.parametrize("batch", [1, 3, 7, 8, 16, 20])
def test_every_input_runs_in_full_batches(batch: int) -> None:
    graph = Table(EXPECTED, batch)
    (check,) = check_graph(graph, EXPECTED, [batch], [])
    assert (check.batch, check.relative, check.heads) == (batch, 0.0, 0) and check.cosine == pytest.approx(1.0)
    assert set(graph.batches) == {batch} and sum(graph.batches) >= 8 > sum(graph.batches) - batch


@pytest.mark.parametrize("row", [0, 2, 6])
def test_one_wrong_row_of_one_batch_size_is_found(row: int) -> None:
    def spoil(batch: int, output: np.ndarray) -> None:
        if batch == 7:
            output[row] *= 1.1

    checks = check_graph(Table(EXPECTED, 7, spoil), EXPECTED, [1, 3, 7], [])
    assert [check.relative > 0.09 for check in checks] == [False, False, True]
    assert [text.split(":")[0] for text in faults(checks, "fp16")] == ["batch 7"]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (BatchCheck(4, 0.99, 1e-3, 0.1, 8, 8, 1.0), ["batch 4: cosine 0.990000 (at least 0.999)"]),
        (BatchCheck(4, 0.9999, 0.1, 0.1, 8, 8, 1.0), ["batch 4: relative error 0.1 (at most 0.05)"]),
        (BatchCheck(4, 0.9999, 0.01, 0.1, 8, 7, 1.0), ["batch 4: top genre the same on 7 of 8 rows"]),
        (BatchCheck(4, float("nan"), float("nan"), 0.1, 0, 0, 1.0), ["batch 4: cosine nan", "relative error nan"]),
        (BatchCheck(4, 0.9999, 0.01, 0.1, 0, 0, 1.0), []),
    ],
)
def test_limits(check: BatchCheck, words: list[str]) -> None:
    text = "; ".join(faults([check], "fp16"))
    assert all(word in text for word in words) and bool(text) == bool(words)


def test_fp32_is_held_to_more() -> None:
    check = BatchCheck(1, 0.9999, 0.014, 0.1, 8, 8, 1.0)
    assert faults([check], "fp32") and not faults([check], "fp16")


def test_one_wrong_row_leaves_the_median() -> None:
    def spoil(batch: int, output: np.ndarray) -> None:
        output[2] *= -1.0

    (check,) = check_graph(Table(EXPECTED, 8, spoil), EXPECTED, [8], [])
    assert (check.cosine, check.median_cosine) == (pytest.approx(-1.0), pytest.approx(1.0))


def heads_of(bundle: Bundle, stage: str) -> tuple[list[str], list[str]]:
    references = {entry.name: reference_expected(bundle, entry.name) for entry in bundle.manifest.stages}
    with open_heads(bundle, stage, references, OrtBackend(1)) as heads:
        return [head.stage for head in heads], head_notes(bundle, stage, references)


def test_heads_are_asked_where_all_their_inputs_have_references(tmp_path: Path) -> None:
    bundle = bundles_module.load(engine_bundle(tmp_path / "a", "mert", "jmla"))
    assert heads_of(bundle, "mert") == (["mert", "jmla"], [])
    assert heads_of(bundle, "jmla") == (["jmla"], [])
    with_fma = bundles_module.load(engine_bundle(tmp_path / "b", "mert", fma=True))
    assert heads_of(with_fma, "mert") == ([], ["the head of mert also takes fma, without reference vectors"])


def test_a_fused_head_gets_the_embedding_in_its_place(tmp_path: Path) -> None:
    bundle = bundles_module.load(engine_bundle(tmp_path / "a", "mert", "jmla"))
    references = {name: reference_expected(bundle, name) for name in ("mert", "jmla")}
    own = references["jmla"]
    assert own is not None and references["mert"] is not None
    with open_heads(bundle, "jmla", references, OrtBackend(1)) as (head,):
        assert head.first == DIM
        same = head.probabilities(own.embedding)
        np.testing.assert_array_equal(same, head.probabilities(None))
        assert not np.allclose(head.probabilities(own.embedding + 1.0), same)


def test_a_close_call_is_not_counted(tmp_path: Path) -> None:
    root = engine_bundle(tmp_path / "a")
    write_head(root / "heads/mert.onnx", DIM, seed=3)
    bundles.write_head(root / "heads/mert.onnx", DIM)  # weights of 1e-6: every genre as good as the others
    refresh_hashes(root)
    (row, *_) = rows(run(root))
    assert row[-2:] == ["–", "ok"]


def test_cpu_table(tmp_path: Path) -> None:
    root = engine_bundle(tmp_path / "a", "mert", "jmla", fma=True)
    result = run(root)
    assert result.exit_code == 0
    assert [(row[0], row[1], row[2], row[3], row[-1]) for row in rows(result)] == [
        (name, "fp32", "onnx", batch, "ok") for name in ("mert", "jmla") for batch in "145"
    ]
    heard = [line.split() for line in result.stdout.splitlines() if " cascade " in line]
    assert [(row[0], row[1]) for row in heard] == [("fma", "fma518"), ("mert", "fp32"), ("jmla", "fp32")]
    assert all("not compared: it answers, but the bundle has no references" in " ".join(row) for row in heard)
    assert "the head of mert also takes fma" in result.stderr
    plain = json.loads(run(root, "--stage", "jmla", "--precision", "fp16", "--format", "json").stdout)
    assert [(one["stage"], one["precision"], one["status"]) for one in plain] == [
        ("jmla", "fp16", "ok"),
        ("jmla", "fp16", "not compared"),
    ]
    assert [check["batch"] for check in plain[0]["checks"]] == [1, 4, 5]


def test_another_encoder_in_the_file_is_a_mismatch(tmp_path: Path) -> None:
    """An ONNX file that was replaced together with its hash: only its numbers tell."""
    root = engine_bundle(tmp_path / "a")
    write_other_encoder(root / "encoders/mert.fp32.onnx")
    refresh_hashes(root)
    result = run(root)
    assert result.exit_code == 4
    assert "mismatch: batch 1: cosine" in result.stdout and "batch 5: cosine" in result.stdout


def test_numbers_that_are_none_in_json(tmp_path: Path, device: Callable[..., None]) -> None:
    setup = Setup(tmp_path)
    setup.build()
    device(setup.scratch, lambda plan, batch, got: got * np.nan)
    (plain,) = json.loads(on_engines(setup, "--format", "json").stdout, parse_constant=pytest.fail)
    assert plain["status"] == "mismatch" and plain["checks"][0]["relative"] is None


def write_other_encoder(path: Path) -> None:
    from onnx import helper

    weights = {"shape": np.array([0, DIM, -1], np.int64), "axis": np.array([2], np.int64)}
    nodes = [
        helper.make_node("Reshape", ["waveform", "shape"], ["parts"]),
        helper.make_node("ReduceMax", ["parts", "axis"], ["embedding"], keepdims=0),
    ]
    bundles.write_graph(path, ("waveform", 8_000), ("embedding", DIM), nodes, weights)


def test_altered_files_are_refused(tmp_path: Path) -> None:
    for file in ("encoders/mert.fp32.onnx", "reference/mert.npz", "heads/mert.onnx"):
        root = engine_bundle(tmp_path / file.replace("/", "-"))
        path = root / file
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
        with pytest.raises(BundleError, match=f"{file}: expected "):
            run(root)


def test_references_of_another_geometry(tmp_path: Path) -> None:
    root = engine_bundle(tmp_path / "a")
    other = engine_bundle(tmp_path / "b")
    text = (other / "bundle.yaml").read_text(encoding="utf-8").replace("dim: 8", "dim: 16")
    (root / "bundle.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(EngineError, match=r"made for rate, samples and dim \(16000, 8000, 8\), the stage mert has"):
        run(root)


def test_nothing_to_compare(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path, [bundles.waveform_stage("mert")])
    with pytest.raises(UsageError, match="nothing of test could be compared"):
        run(root)
    with pytest.raises(UsageError, match="expected fp16, the bundle has fp32"):
        run(root, "--precision", "fp16")
    with pytest.raises(UsageError, match="--precision: expected one of fp32, fp16, got 'bogus'"):
        run(root, "--precision", "bogus")
    with pytest.raises(UsageError, match="--precision: expected one of fp16, fp32, got 'int8'"):
        run(root, "--precision", "int8", "--device", "tensorrt")
    with pytest.raises(UsageError, match="no stage 'x'"):
        run(root, "--stage", "x")


def test_reference_audio(tmp_path: Path) -> None:
    root = engine_bundle(tmp_path / "a")
    track = tmp_path / "own.wav"
    soundfile.write(track, 0.1 * np.random.default_rng(1).standard_normal(44_100), 44_100)
    same = run(root, "--reference-audio", track)
    assert same.exit_code == 0 and "own.wav: not compared, this file on this CPU" in same.stderr
    half = run(root, "--reference-audio", track, "--precision", "fp16")
    assert half.exit_code == 0 and "own.wav: cosine 1.000000" in half.stderr
    write_other_encoder(root / "encoders/mert.fp16.onnx")
    refresh_hashes(root)
    other = run(root, "--reference-audio", track, "--precision", "fp16")
    assert other.exit_code == 4 and "own.wav: batch" in other.stdout
    with pytest.raises(UsageError, match=r"--reference-audio .*absent\.wav"):
        run(root, "--reference-audio", tmp_path / "absent.wav", "--precision", "fp16")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, fake_tensorrt: Callable[..., None]) -> Callable[..., None]:
    """Makes this machine one with an Orin and a backend for engines; ``spoil`` makes its numbers wrong."""
    from edge_reclass import backends

    def become(scratch: Path, spoil: Any = None) -> None:
        def open_backend(name: str, *, threads: int, flavour: str = "auto") -> base.Backend:
            return FakeDevice(scratch, spoil) if name == "tensorrt" else OrtBackend(threads)

        monkeypatch.setattr(host, "probe_gpu", lambda: ORIN)
        monkeypatch.setattr(backends, "open_backend", open_backend)

    return become


def on_engines(setup: Setup, *arguments: str | Path) -> Result:
    return run(setup.root, "--device", "tensorrt", "--engines", setup.store, *arguments)


def test_engines_are_verified_and_recorded(tmp_path: Path, device: Callable[..., None]) -> None:
    setup = Setup(tmp_path)
    device(setup.scratch)
    setup.build(gpu=None)
    assert setup.records()["mert fp16"].verification is None
    result = on_engines(setup)
    assert result.exit_code == 0
    assert [(row[1], row[2], row[3], row[-1]) for row in rows(result)] == [
        ("fp16", "engine", b, "ok") for b in ("1", "4", "16")
    ]
    record = setup.records()["mert fp16"]
    assert record.verification is not None and record.not_verified is None
    assert len(record.verification.checks) == 3


def test_a_folder_that_is_only_read(
    tmp_path: Path, device: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines on a read-only file system are verified all the same; only the record stays as it was."""
    setup = Setup(tmp_path)
    setup.build(gpu=None)
    device(setup.scratch)

    def refused(path: Path, target: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refused)
    result = on_engines(setup)
    monkeypatch.undo()
    assert result.exit_code == 0 and "not recorded: engines cannot be written" in result.stderr
    assert setup.records()["mert fp16"].verification is None
    assert [name for name in setup.left() if name.endswith(".part")] == []


def test_an_engine_that_disagrees_is_not_used_again(tmp_path: Path, device: Callable[..., None]) -> None:
    setup = Setup(tmp_path)
    setup.build()
    device(setup.scratch, wrong_at(4))
    result = on_engines(setup)
    assert result.exit_code == 4
    assert (
        "mismatch: batch 4: cosine -1.0" in result.stdout
        and f"build {setup.root} --stage mert --rebuild  tries" in result.stderr
    )
    assert setup.records()["mert fp16"].rejected is not None
    again = on_engines(setup)
    assert again.exit_code == 4 and "missing: no engine of mert fp32" in again.stdout


@pytest.mark.parametrize("largest", [1, 4, 3])
def test_engines_of_a_smaller_batch_are_verified_up_to_it(
    largest: int, tmp_path: Path, device: Callable[..., None]
) -> None:
    setup = Setup(tmp_path)
    setup.build(gpu=None, max_batch=largest)
    device(setup.scratch)
    result = on_engines(setup)
    assert result.exit_code == 0, result.stdout
    assert [(row[3], row[-1]) for row in rows(result)] == [(str(b), "ok") for b in dict.fromkeys((1, largest))]
    record = setup.records()["mert fp16"]
    assert record.verification is not None and record.key.profile.max == largest


@pytest.mark.parametrize("on_device", [False, True])
def test_a_head_that_does_not_fit_is_the_bundles_fault(
    on_device: bool, tmp_path: Path, device: Callable[..., None]
) -> None:
    setup = Setup(tmp_path)
    setup.build()
    device(setup.scratch)
    built = setup.engines
    write_head(setup.root / "heads/mert.onnx", DIM + 1, seed=3)
    refresh_hashes(setup.root)
    built.rename(setup.engines)  # of the changed bundle
    with pytest.raises(BundleError, match=r"heads/mert\.onnx: the head of mert does not fit the bundle: "):
        on_engines(setup) if on_device else run(setup.root)
    assert setup.records()["mert fp16"].rejected is None


REFUSALS: dict[str, tuple[Callable[[Setup], object], str]] = {
    "missing": (lambda setup: None, "missing: no engine of mert fp16"),
    "flipped byte": (lambda setup: damage(setup, "flipped byte"), "damaged: .*expected sha256"),
    "cut off": (lambda setup: damage(setup, "cut off"), "damaged: .*expected [0-9]+ bytes, got"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_engines(case: str, tmp_path: Path, device: Callable[..., None]) -> None:
    import re

    setup = Setup(tmp_path)
    device(setup.scratch)
    if case != "missing":
        setup.build()
    spoil, words = REFUSALS[case]
    spoil(setup)
    result = on_engines(setup)
    assert result.exit_code == 4 and re.search(words, result.stdout), result.stdout


@pytest.mark.parametrize(
    ("gpu", "version", "words"),
    [
        (ORIN, "10.16.1", "stale: TensorRT version: built for 10.3.0, here 10.16.1"),
        (("Thor", "11.0", "l4t-36.4.3"), "10.3.0", r"compute capability \(SM\): built for 8.7, here 11.0; GPU: built"),
        (("Orin", "8.7", "l4t-36.5.0"), "10.3.0", "stale: driver: built for l4t-36.4.3, here l4t-36.5.0"),
    ],
)
def test_engines_of_another_machine(
    gpu: Any,
    version: str,
    words: str,
    tmp_path: Path,
    device: Callable[..., None],
    fake_tensorrt: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import re

    setup = Setup(tmp_path)
    setup.build()
    device(setup.scratch)
    fake_tensorrt(version=version)
    monkeypatch.setattr(host, "probe_gpu", lambda: host.Gpu(*gpu) if gpu is not ORIN else ORIN)
    before = setup.left()
    result = on_engines(setup)
    assert result.exit_code == 4 and re.search(words, result.stdout), result.stdout
    assert setup.left() == before


def test_onnx_altered_after_export(tmp_path: Path, device: Callable[..., None]) -> None:
    setup = Setup(tmp_path)
    setup.build()
    device(setup.scratch)
    file = setup.root / "encoders/mert.fp16.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    with pytest.raises(BundleError, match=r"mert\.fp16\.onnx: expected \d+ bytes"):
        on_engines(setup)


def test_a_stage_that_fell_back_is_verified_on_the_cpu(tmp_path: Path, device: Callable[..., None]) -> None:
    setup = Setup(tmp_path)
    (outcome,) = setup.build(spoil=lambda plan, batch, got: got * np.nan)
    assert outcome.action == "cpu"
    device(setup.scratch)
    result = on_engines(setup)
    assert result.exit_code == 0 and "runs with ONNX Runtime on the CPU" in result.stderr
    assert {(row[1], row[2], row[-1]) for row in rows(result)} == {("fp32", "onnx", "ok")}


def test_devices_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = engine_bundle(tmp_path / "a")
    with pytest.raises(UsageError, match="no device 'npu'"):
        run(root, "--device", "npu")
    with pytest.raises(DeviceError, match="cuda"):
        run(root, "--device", "cuda")

    def no_gpu() -> host.Gpu:
        raise DeviceError("no NVIDIA GPU: none")

    monkeypatch.setattr(host, "probe_gpu", no_gpu)
    with pytest.raises(DeviceError, match=r"no NVIDIA GPU|no tensorrt"):
        run(root, "--device", "tensorrt")
