"""Building engines, with a stand-in for TensorRT and for the GPU: what is built, kept, refused and left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_reclass import bundle as bundles_module
from edge_reclass import host
from edge_reclass.backends import open_backend, open_library
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.engines.record import EngineRecord, target_for
from edge_reclass.engines.store import engines_folder, stored_engines, survey
from edge_reclass.errors import BundleError, DeviceError, UsageError
from edge_reclass.host.gpu import Gpu
from edge_reclass_export.engine.build import BuildResult, DeviceCheck, EngineBuild, default_timing_cache, dry_run
from edge_reclass_export.engine.stages import engine_stages, graph_stages
from edge_reclass_export.engine.store import EngineStore
from export.engine_bundles import DIM, engine_bundle, refresh_hashes, write_head
from export.fake_device import ORIN, FakeDevice, Spoil, header

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(autouse=True)
def fake_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes ``import tensorrt`` find the stand-in, here and in child processes; gives how to set what happens."""
    monkeypatch.syspath_prepend(FAKES)

    def behave(**plan: Any) -> None:
        monkeypatch.setenv("FAKE_TENSORRT", json.dumps(plan))
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    behave()
    yield behave
    sys.modules.pop("tensorrt", None)


class Setup:
    """A bundle, a folder for engines, and one call that builds."""

    def __init__(self, folder: Path, *names: str, **options: Any) -> None:
        self.root = engine_bundle(folder / "bundle", *names, **options)
        self.store = folder / "engines"
        self.scratch = folder / "scratch"
        self.events: list[Any] = []

    def build(
        self,
        *,
        gpu: Gpu | None = ORIN,
        spoil: Spoil | None = None,
        device: Callable[[], Any] | None = None,
        precision: str | None = None,
        rebuild: bool = False,
        max_batch: int | None = None,
        dry: bool = False,
    ) -> list[BuildResult]:
        bundle = bundles_module.load(self.root)
        library = open_library("tensorrt")
        target = target_for("tensorrt", library.version, gpu=ORIN)
        store = EngineStore(self.engines)
        stages = engine_stages(bundle, target, precision=precision, max_batch=max_batch)
        if dry:
            return list(dry_run(bundle, library, store, stages, rebuild=rebuild))
        run = EngineBuild(
            bundle,
            library,
            target,
            store,
            DeviceCheck(
                bundle, target, gpu, device or (lambda: FakeDevice(self.scratch, spoil)), lambda: OrtBackend(1)
            ),
            default_timing_cache(self.engines, target),
            rebuild,
            precision is None,
        )
        return [run.run(stage, self.events.append) for stage in stages]

    @property
    def engines(self) -> Path:
        """The folder of this bundle's engines."""
        return engines_folder(bundles_module.load(self.root).digest, self.store)

    def records(self) -> dict[str, EngineRecord]:
        found = [entry for entry in stored_engines(self.engines) if not isinstance(entry, str)]
        return {f"{entry.record.stage} {entry.record.precision}": entry.record for entry in found}

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.engines)) for path in self.engines.rglob("*") if path.is_file())


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def wrong_at(batch: int, precision: str = "fp16") -> Spoil:
    """A device whose engines of one precision give wrong numbers in the last row of one batch size."""

    def spoil(plan: Path, got: int, rows: np.ndarray) -> np.ndarray:
        asked = json.loads(plan.read_bytes().partition(b"\n")[0])
        if got == batch and asked["file"].endswith(f"{precision}.onnx"):
            rows[-1] *= -1.0
        return rows

    return spoil


def test_an_engine_is_built_verified_and_kept(setup: Setup) -> None:
    (outcome,) = setup.build()
    assert (outcome.action, outcome.precision, outcome.verified) == ("build", "fp16", True)
    assert "built in" in outcome.detail and "GB of memory" in outcome.detail
    record = setup.records()["mert fp16"]
    assert outcome.record is not None
    assert record == msgspec.structs.replace(outcome.record, signature=record.signature)
    assert outcome.folder is not None
    plan = outcome.folder / "engine.plan"
    assert record.bytes == plan.stat().st_size and record.build_peak_bytes > 1_000_000
    assert record.verification is not None and record.instead_of == ()
    assert [check.batch for check in record.verification.checks] == [1, 4, 16]
    assert all(check.heads_agree == check.heads > 0 for check in record.verification.checks)
    asked = header(plan)
    assert asked["profiles"] == [{"waveform": [[1, 8000], [4, 8000], [16, 8000]]}]
    assert asked["flags"] == []  # neither FP16 nor TF32
    assert asked["outputs"] == ["embedding"]
    assert sorted({event["event"] for event in setup.events}) == ["log", "progress"]
    assert setup.left() == [
        f"{outcome.folder.name}/engine.json",
        f"{outcome.folder.name}/engine.plan",
        "timing-10.3.0-sm87.cache",
    ]
    before = plan.stat().st_mtime_ns
    (again,) = setup.build()
    assert (again.action, again.detail) == ("keep", "present, verified")
    assert plan.stat().st_mtime_ns == before
    (anew,) = setup.build(rebuild=True)
    assert anew.action == "build" and plan.stat().st_mtime_ns > before


def test_the_profile_is_what_the_runtime_asks_for(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "mert", "jmla")
    bundle = bundles_module.load(setup.root)
    # 2 s in windows of half a second are 4; rounding while resampling may make a fifth, as in the runtime's plan.
    assert {name: profile.batches for name, profile in graph_stages(bundle).items()} == {"mert": (1, 4, 5)} | {
        "jmla": (1, 4, 5)
    }
    # On a GPU the windows of several tracks are run together.
    assert graph_stages(bundle, shared=True)["mert"].batches == (1, 4, 16)
    assert graph_stages(bundle, max_batch=2)["mert"].batches == (1, 2)
    assert graph_stages(bundle, ["jmla"]).keys() == {"jmla"}
    with pytest.raises(UsageError, match="no stage 'x': the bundle test has mert, jmla"):
        graph_stages(bundle, ["x"])


def test_fma_stages_need_no_engine(tmp_path: Path) -> None:
    setup = Setup(tmp_path, fma=True)
    assert [outcome.stage for outcome in setup.build()] == ["mert"]
    with pytest.raises(UsageError, match=r"its encoder \(fma518 at 22050 Hz, 518 features\) has no graph"):
        graph_stages(bundles_module.load(setup.root), ["fma"])


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_wrong_numbers_at_any_batch_fall_back_in_the_open(setup: Setup, batch: int) -> None:
    (outcome,) = setup.build(spoil=wrong_at(batch))
    assert (outcome.action, outcome.precision, outcome.verified) == ("build", "fp32", True)
    records = setup.records()
    assert f"batch {batch}: cosine -1.0" in str(records["mert fp16"].rejected)
    assert records["mert fp16"].sha256 is None
    assert records["mert fp32"].instead_of[0].precision == "fp16"
    assert [path for path in setup.left() if path.endswith(".plan")] == [f"{records['mert fp32'].key.name}/engine.plan"]
    # The next build trusts the record and measures nothing again; the runtime's lookup refuses the engine.
    (again,) = setup.build()
    assert (again.action, again.precision, [one.precision for one in again.rejected]) == ("keep", "fp32", ["fp16"])
    state = survey(setup.engines, records["mert fp16"].key, bundle=setup.root, stage="mert", precision="fp16")
    assert state.status == "rejected"
    (retried,) = setup.build(rebuild=True)
    assert (retried.action, retried.precision) == ("build", "fp16")


def test_nothing_right_means_the_cpu(setup: Setup) -> None:
    def nan(plan: Path, batch: int, rows: np.ndarray) -> np.ndarray:
        return rows * np.nan

    (outcome,) = setup.build(spoil=nan)
    assert (outcome.action, [one.precision for one in outcome.rejected]) == ("cpu", ["fp16", "fp32"])
    assert not [path for path in setup.left() if path.endswith(".plan")]
    assert [one.action for one in setup.build(dry=True)] == ["cpu"]
    (only,) = setup.build(spoil=nan, precision="fp16", rebuild=True)
    assert only.action == "failed" and only.detail.startswith("mert fp16: batch 1: ") and "cosine -1" in only.detail
    assert only.detail.endswith("; next: leave --precision out, so that another one is tried")
    (earlier,) = setup.build(spoil=nan, precision="fp16")
    assert earlier.action == "failed" and earlier.detail.startswith("mert fp16: batch 1: ")
    assert earlier.detail.endswith(
        f"(rejected by an earlier run); next: edge-reclass build {setup.root} --stage mert --rebuild  tries again"
    )


@pytest.mark.parametrize("fail", ["unsupported", "null"])
def test_a_precision_that_cannot_be_built_falls_back(
    setup: Setup, fake_tensorrt: Callable[..., None], fail: str
) -> None:
    fake_tensorrt(fail=fail, precisions=["fp16"])
    (outcome,) = setup.build()
    assert (outcome.action, outcome.precision) == ("build", "fp32")
    words = {"unsupported": "node 'layer_3/attention' (Attention): No importer", "null": "any implementation for node"}
    assert words[fail] in outcome.rejected[0].reason
    assert "; next: " in outcome.rejected[0].reason
    # Only what TensorRT cannot take is a verdict about the graph; what it failed to build is tried again.
    assert ("mert fp16" in setup.records()) == (fail == "unsupported")
    assert [one.precision for one in setup.records()["mert fp32"].instead_of] == ["fp16"]
    fake_tensorrt(fail=fail)
    (only,) = setup.build(precision="fp16", rebuild=True)
    assert only.action == "failed" and "next: " in only.detail


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("memory", "out of memory: .*Requested amount of GPU memory.*next: free memory .*lower --max-batch"),
        ("bad_alloc", "out of memory: .*next: free memory"),
        ("killed", r"out of memory: the system ended the build \(signal 9\).*next: free memory"),
        ("crash", "cannot be built: the build ended with exit code 134: terminate called.*next: run again with --verb"),
    ],
)
def test_a_machine_that_fails_is_no_verdict_about_the_graph(
    setup: Setup, fake_tensorrt: Callable[..., None], fail: str, words: str
) -> None:
    import re

    fake_tensorrt(fail=fail)
    (outcome,) = setup.build()
    assert outcome.action == "failed" and outcome.precision == "fp16"
    assert re.search(words, outcome.detail, re.DOTALL), outcome.detail
    assert not setup.engines.exists()
    fake_tensorrt()
    assert setup.build()[0].action == "build"


def test_without_a_device_to_build_on(setup: Setup, fake_tensorrt: Callable[..., None]) -> None:
    fake_tensorrt(fail="no device")
    with pytest.raises(DeviceError, match="CUDA initialization failure"):
        setup.build()
    assert not setup.engines.exists()


def no_gpu() -> Gpu:
    raise DeviceError("no NVIDIA GPU: none")


def test_built_but_not_verified(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = setup.build(gpu=None)
    assert (outcome.action, outcome.verified) == ("build", False)
    assert outcome.record is not None and outcome.record.not_verified == "this machine has no GPU to run it on"
    (same,) = setup.build(gpu=None)
    assert (same.action, same.detail) == ("keep", "present, not verified: this machine has no GPU to run it on")
    other = Gpu("RTX 3060", "8.6", "driver-580.1")
    assert "it is for SM 8.7, the GPU here has 8.6" in setup.build(gpu=other)[0].detail
    # Where the device cannot be opened, the reason is that.
    monkeypatch.setattr(host, "probe_gpu", no_gpu)
    real = setup.build(device=lambda: open_backend("tensorrt", threads=1))
    assert "not verified: no NVIDIA GPU: none" in real[0].detail
    # Where it can be verified later, it is, without being built again.
    (verified,) = setup.build()
    assert (verified.action, verified.detail, verified.verified) == ("keep", "present, verified", True)
    assert setup.records()["mert fp16"].not_verified is None


def test_an_engine_found_wrong_later_is_rejected(setup: Setup) -> None:
    setup.build(gpu=None)
    (outcome,) = setup.build(spoil=wrong_at(4))
    assert (outcome.action, outcome.precision) == ("build", "fp32")
    assert setup.records()["mert fp16"].rejected is not None


def test_without_reference_vectors_it_stays_unverified(setup: Setup) -> None:
    text = (setup.root / "bundle.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.strip().startswith("reference: ")]
    assert len(lines) == len(text.splitlines()) - 1
    (setup.root / "bundle.yaml").write_text("\n".join(lines), encoding="utf-8")
    (outcome,) = setup.build()
    assert not outcome.verified and "no reference vectors" in outcome.detail


def test_onnx_altered_after_export(setup: Setup) -> None:
    file = setup.root / "encoders" / "mert.fp16.onnx"
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"mert\.fp16\.onnx: expected sha256 .*, got "):
        setup.build()
    assert not setup.engines.exists()


def test_a_manifest_of_other_dimensions(setup: Setup) -> None:
    text = (setup.root / "bundle.yaml").read_text(encoding="utf-8")
    (setup.root / "bundle.yaml").write_text(text.replace("window_samples: 8000", "window_samples: 8008"), "utf-8")
    for precision in ("fp16", None):
        words = r"expected the input waveform\[batch, 8008\], got \[\('waveform', \(-1, 8000\)\)\]; next: manifest and"
        with pytest.raises(BundleError, match=words):
            setup.build(precision=precision)
        assert not setup.engines.exists()


def test_a_head_that_does_not_fit_is_the_bundles_fault(setup: Setup) -> None:
    write_head(setup.root / "heads/mert.onnx", DIM + 1, seed=3)
    refresh_hashes(setup.root)
    with pytest.raises(BundleError, match=r"heads/mert\.onnx: the head of mert does not fit the bundle: .*features"):
        setup.build()
    assert not setup.engines.exists()


def damage(setup: Setup, how: str) -> None:
    plan = setup.engines / setup.records()["mert fp16"].key.name / "engine.plan"
    content = bytearray(plan.read_bytes())
    if how == "flipped byte":
        content[len(content) // 2] ^= 1
    elif how == "cut off":
        content = content[:-100]
    plan.write_bytes(content) if how != "gone" else plan.unlink()


@pytest.mark.parametrize(
    ("how", "words"), [("flipped byte", "expected sha256"), ("cut off", "bytes, got"), ("gone", "cannot be read")]
)
def test_a_damaged_engine_is_built_again(setup: Setup, how: str, words: str) -> None:
    setup.build()
    damage(setup, how)
    (planned,) = setup.build(dry=True)
    setup.build(max_batch=2)
    assert setup.build(dry=True) == [planned]  # another engine that serves does not hide what is wrong with this one
    assert planned.action == "build" and planned.detail.startswith("damaged: ") and words in planned.detail
    assert setup.build()[0].action == "build"
    assert setup.build(dry=True)[0].action == "keep"
    assert not list(setup.engines.glob(".building-*"))


def test_dry_run_says_which_part_differs(setup: Setup, fake_tensorrt: Callable[..., None]) -> None:
    (planned,) = setup.build(dry=True)
    assert (planned.action, planned.precision) == ("build", "fp16")
    assert planned.detail == f"missing: no engine of mert fp16 in {setup.engines}"
    assert not setup.engines.exists()
    setup.build()
    before = setup.left()
    fake_tensorrt(version="10.16.1")
    assert setup.build(dry=True)[0].detail == "stale: TensorRT version: built for 10.3.0, here 10.16.1"
    fake_tensorrt()
    assert (
        "stale: profile: built for waveform[1/4/16, 8000], wanted waveform[1/2/2, 8000]"
        in setup.build(dry=True, max_batch=2)[0].detail
    )
    assert setup.build(dry=True, max_batch=2)[0].detail.endswith(
        "only that differs, so verify and the runtime can use it as it is"
    )
    assert setup.build(dry=True, rebuild=True)[0].detail == "present: verified; --rebuild"
    assert setup.left() == before
    (setup.root / "encoders" / "mert.fp16.onnx").write_bytes(
        # Another name of the producer: the same graph, another file.
        (setup.root / "encoders" / "mert.fp32.onnx").read_bytes() + b"\x12\x01x"
    )
    refresh_hashes(setup.root)
    # Another file is another bundle, whose engines have a folder of their own.
    assert setup.build(dry=True)[0].detail.startswith("missing: no engine of mert fp16 in ")
    assert setup.left() == []


def test_nothing_built_in_any_precision_is_no_verdict(setup: Setup, fake_tensorrt: Callable[..., None]) -> None:
    """The CPU takes a stage only where every precision was judged; else verify would miss an engine."""
    fake_tensorrt(fail="null")
    (outcome,) = setup.build()
    assert outcome.action == "failed" and outcome.detail.startswith("mert: no engine could be built (fp16: cannot be")
    assert "; fp32: cannot be built: " in outcome.detail and not setup.engines.exists()
    fake_tensorrt(fail="unsupported")
    assert setup.build()[0].action == "cpu"


def test_dry_run_refuses_what_the_build_would_refuse(setup: Setup) -> None:
    setup.build()
    file = setup.root / "encoders" / "mert.fp16.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    assert setup.build(dry=True)[0].action == "keep"  # nothing would be read
    with pytest.raises(BundleError, match=r"mert\.fp16\.onnx: expected \d+ bytes"):
        setup.build(dry=True, rebuild=True)


def test_the_timing_cache_is_read_written_and_made_anew(setup: Setup, fake_tensorrt: Callable[..., None]) -> None:
    cache = setup.engines / "timing-10.3.0-sm87.cache"
    setup.build()
    assert cache.read_bytes() == b"10.3.0 0"
    setup.build(rebuild=True)
    assert cache.read_bytes() == b"10.3.0 8"
    cache.write_bytes(b"9.9 something")
    setup.build(rebuild=True)
    assert cache.read_bytes() == b"10.3.0 0"
    assert any("another device or version" in event.get("text", "") for event in setup.events)


def test_a_tensorrt_without_progress_monitor(setup: Setup, fake_tensorrt: Callable[..., None]) -> None:
    fake_tensorrt(lacks=["IProgressMonitor"])
    assert setup.build()[0].action == "build"
    assert not any(event["event"] == "progress" for event in setup.events)


def test_a_folder_that_cannot_be_written(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.store.mkdir()
    setup.engines.write_bytes(b"")
    with pytest.raises(UsageError, match=r"is not a folder.*--engines DIR or EDGE_RECLASS_ENGINES"):
        EngineStore(setup.engines).require_writable()
    with pytest.raises(UsageError, match=r"--engines DIR or EDGE_RECLASS_ENGINES"):
        setup.build()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=r"not writable.*--engines DIR"):
        EngineStore(setup.engines.parent / "elsewhere").require_writable()


def test_what_a_killed_build_left_is_swept_away(setup: Setup) -> None:
    setup.engines.mkdir(parents=True)
    left = setup.engines / ".building-killed"
    left.mkdir()
    (left / "lock").touch()
    (left / "engine.plan").write_bytes(b"half")
    busy = EngineStore(setup.engines)
    with busy.workspace() as other:
        assert not left.exists()
        setup.build()
        assert other.exists()
    assert not list(setup.engines.glob(".building-*"))


INTERRUPTED = """
import sys
from edge_reclass import cli, host
from edge_reclass_export.commands.build import build
host.probe_gpu = lambda: host.Gpu("Orin", "8.7", "l4t-36.4.3")
cli.app.command(name="build")(build)
cli.main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing(setup: Setup, tmp_path: Path, how: signal.Signals) -> None:
    started = tmp_path / "started"
    plan = {"fail": "hang", "started": str(started)}
    paths = os.pathsep.join([str(FAKES), str(Path(__file__).parents[1]), *(entry for entry in sys.path if entry)])
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "build", str(setup.root), "--engines", str(setup.store)],
        env=os.environ | {"FAKE_TENSORRT": json.dumps(plan), "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        # A test run that was itself started in the background hands down an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not started.exists():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.02)
        (worker,) = children(process.pid)
        process.send_signal(how)
        status = process.wait(timeout=120)
    finally:
        process.kill()
        process.communicate()
    until = time.monotonic() + 120
    while Path(f"/proc/{worker}").exists() and state(worker) != "Z":  # an orphan stays until somebody reaps it
        assert time.monotonic() < until, "the worker outlives its builder"
        time.sleep(0.02)
    assert status == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    if how != signal.SIGKILL:
        assert not setup.engines.exists()
    else:
        # Nothing can clean up after itself here: no engine is there, and the next build sweeps the rest away.
        assert not list(stored_engines(setup.engines))
        assert setup.build(gpu=None)[0].action == "build"
        assert not list(setup.engines.glob(".building-*"))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_records_read_back_equal(setup: Setup) -> None:
    (outcome,) = setup.build(spoil=wrong_at(4))
    record = setup.records()["mert fp32"]
    assert outcome.record is not None
    assert record == msgspec.structs.replace(outcome.record, signature=record.signature)
    assert record == msgspec.json.decode(record.to_json(), type=EngineRecord)
