"""``edge-reclass doctor``: what it finds, says and exits with, on emulated machines and on this one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

import edge_reclass_doctor as doctor_module
from bundles import edit_manifest, fma_stage, make_bundle, waveform_stage
from doctor.machine.emulator import (
    BOARDS,
    Emulated,
    FakeCuda,
    FakeNvml,
    emulated,
    fake_root,
    libraries,
    python_of,
    replace_tool,
)
from edge_reclass.bundle.loading import load
from edge_reclass.engines.record import EngineKey, EngineRecord, Profile, Verification, target_for
from edge_reclass.engines.store import RECORD
from edge_reclass.engines.trust import default_store, make_secret
from edge_reclass.errors import UsageError
from edge_reclass.host.gpu import Gpu
from edge_reclass.installing import install_command, pip_command
from edge_reclass_doctor import diagnose, doctor
from edge_reclass_doctor import machine as machines
from edge_reclass_doctor.machine import Machine, ToolResult
from edge_reclass_doctor.machine.records import Disk, OnnxRuntime
from edge_reclass_doctor.report import Report
from edge_reclass_doctor.summary import summary
from edge_reclass_doctor.text import WIDTH, details


def page(report: Report) -> str:
    """Everything that ``--verbose`` prints."""
    return f"{details(report)}\n\n{summary(report)}"


ORT = OnnxRuntime("1.23.2", ("CPUExecutionProvider",))
ORT_CUDA = OnnxRuntime("1.26.0", ("CUDAExecutionProvider", "CPUExecutionProvider"))
SOURCE = Path(doctor_module.__file__).parent
DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(doctor)


@dataclass
class Imports:
    """Answers the processes in which libraries are loaded; everything else is really run."""

    tensorrt: ToolResult
    binding: ToolResult = field(default_factory=lambda: ToolResult(0, "loaded 0 0\n", ""))

    def __call__(self, command: Sequence[str], seconds: float) -> ToolResult:
        if command[0] != sys.executable:
            return machines.run_tool(command, seconds)
        return self.tensorrt if "tensorrt" in command[2] else self.binding


def loaded(version: str, flavour: str = "tensorrt") -> Imports:
    return Imports(ToolResult(0, f"loaded {flavour} {version}\n", ""))


def jetson(root: Path, board: str = "orin-nano-6.2", **options: Any) -> Machine:
    """An emulated Jetson with everything that ``tensorrt`` needs but engines."""
    if not root.exists():
        fake_root(root, board)
    found = machines.probe(emulated(root, board, **{"versions": {"cuda-bindings": "12.6.2"}, **options}))
    return msgspec.structs.replace(found, onnxruntime=ORT)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine store of the test's own: bundles made alike have one digest."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Stages fma → mert → jmla, the two with fp16 and fp32 files; mert and fma in the default policy."""

    def both(name: str) -> dict[str, Any]:
        return {"encoder": {"files": {p: f"encoders/{name}.{p}.onnx" for p in ("fp16", "fp32")}}}

    stages = [fma_stage(), waveform_stage("mert", **both("mert")), waveform_stage("jmla", window=8_000, **both("jmla"))]
    steps = [{"after": "fma", "weights": {"fma": 1.0}, "accept": 0.9}, {"after": "mert", "weights": {"mert": 1.0}}]
    return make_bundle(
        tmp_path / "bundle", stages, policies={"short": {"vote": "soft", "steps": steps}}, default_policy="short"
    )


def store(bundle: Path, stage: str, precision: str, machine: Machine, version: str = "10.3.0", **fields: Any) -> Path:
    """Put an engine for ``machine`` beside the bundle."""
    manifest = load(bundle).manifest
    encoder = manifest.stage(stage).encoder
    file = encoder.files[precision]  # type: ignore[union-attr]
    assert machine.gpu is not None
    target = target_for("tensorrt", version, gpu=Gpu(machine.gpu.name, machine.gpu.sm, machine.gpu.driver))
    profile = Profile("waveform", encoder.window_samples, 1, 4, 4)  # type: ignore[union-attr]
    content = f"{stage} {precision}".encode()
    record = EngineRecord(
        **{
            "format": 1,
            "key": EngineKey(manifest.files[file].sha256, target, profile),
            "bundle": manifest.name,
            "stage": stage,
            "precision": precision,
            "file": file,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "verification": Verification("0" * 64, ()),
            **fields,
        }
    )
    folder = default_store() / load(bundle).digest / record.key.name
    folder.mkdir(parents=True)
    record = record.signed_by(make_secret(default_store()))
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    if record.rejected is None:
        (folder / "engine.plan").write_bytes(content)
    return folder


def codes(report: Report, severity: str | None = None) -> list[str]:
    return [problem.code for problem in report.problems if severity in (None, problem.severity)]


def device(report: Report, name: str) -> Any:
    return next(one for one in report.devices if one.device == name)


def fix(report: Report, code: str) -> str:
    return next(problem.fix for problem in report.problems if problem.code == code)


class TestOnThisMachine:
    def test_the_starter_bundle(self) -> None:
        result = CliRunner().invoke(app, ["--device", "cpu", "--verbose"])
        assert result.exit_code == 0, result.output
        assert re.search(r"^  files +10, 5\.0 MB, all hashes match$", result.output, re.MULTILINE)
        assert re.search(r"^  cpu +usable \(ONNX Runtime .*\)  ← taken$", result.output, re.MULTILINE)
        assert "\x1b" not in result.output

    def test_json(self) -> None:
        result = CliRunner().invoke(app, ["--device", "cpu", "--format", "json"])
        assert result.exit_code == 0, result.output
        plain = json.loads(result.stdout)
        assert (plain["format"], plain["wanted"], plain["chosen"], plain["exit_code"]) == (2, "cpu", "cpu", 0)
        assert plain["machine"]["python"]["executable"] == sys.executable
        assert msgspec.json.decode(result.stdout, type=Report).bundle.name == "starter"

    def test_wrong_usage(self) -> None:
        with pytest.raises(UsageError, match="--device: expected one of auto, cpu, cuda, tensorrt, got 'gpu'"):
            diagnose(device="gpu")
        result = CliRunner().invoke(app, ["--format", "yaml"])
        assert isinstance(result.exception, UsageError)


class TestOrin:
    def test_all_is_well(self, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root", "orin-nano-6.2.1")
        for stage in ("mert", "jmla"):
            store(bundle, stage, "fp16", here)
        report = diagnose(bundle, machine=here, run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == ("tensorrt", 0)
        assert codes(report) == [], "clocks matter to benchmarks only"
        assert codes(diagnose(bundle, machine=here, run=loaded("10.3.0"), bench=True)) == ["clocks-vary"]
        states = {(one.stage, one.precision): (one.status, one.used, one.verified) for one in report.engines.engines}
        assert states == {
            ("mert", "fp16"): ("present", True, True),
            ("mert", "fp32"): ("missing", False, None),
            ("jmla", "fp16"): ("present", True, True),
            ("jmla", "fp32"): ("missing", False, None),
        }
        assert report.engines.target == "TensorRT 10.3.0 for SM 8.7 (Orin, l4t-36.4.4)"

    @pytest.mark.parametrize(
        ("wanted", "chosen", "code"), [("tensorrt", None, 4), ("auto", "cpu", 0), ("cpu", "cpu", 0)]
    )
    def test_no_engine(self, wanted: str, chosen: str | None, code: int, bundle: Path, tmp_path: Path) -> None:
        report = diagnose(bundle, device=wanted, machine=jetson(tmp_path / "root"), run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == (chosen, code)
        if wanted == "cpu":
            assert "engine-missing" not in codes(report)
            return
        severity = "problem" if wanted == "tensorrt" else "advice"
        assert "engine-missing" in codes(report, severity)
        assert fix(report, "engine-missing") == f"edge-reclass build {shlex.quote(str(bundle))} --stage mert"

    def test_a_stage_outside_the_default_policy_blocks_nothing(self, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root")
        store(bundle, "mert", "fp16", here)
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == ("tensorrt", 0)
        assert codes(report, "problem") == []
        assert fix(report, "engine-missing").endswith("--stage jmla")

    def test_jetpack_was_upgraded(self, bundle: Path, tmp_path: Path) -> None:
        before = jetson(tmp_path / "before", "orin-nano-6.2")
        store(bundle, "mert", "fp16", before)
        here = jetson(tmp_path / "root", "orin-nano-7.2")
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("10.16.2.10"))
        assert (report.chosen, report.exit_code) == (None, 4)
        stale = next(one for one in report.engines.engines if one.status == "stale")
        assert "TensorRT version: built for 10.3.0, here 10.16.2.10" in stale.reason
        assert "driver: built for l4t-36.4.3, here l4t-39.2.0" in stale.reason
        assert codes(report, "problem") == ["engine-stale"]
        assert fix(report, "engine-stale").startswith("edge-reclass build ")

    @pytest.mark.parametrize("wanted", ["auto", "tensorrt", "cpu"])
    def test_a_damaged_engine(self, wanted: str, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root")
        folder = store(bundle, "mert", "fp16", here)
        (folder / "engine.plan").write_bytes(b"mert fp15")
        report = diagnose(bundle, device=wanted, machine=here, run=loaded("10.3.0"))
        assert "engine-damaged" in codes(report, "problem")
        assert device(report, "tensorrt").exit_code == 4
        assert report.exit_code == (4 if wanted == "tensorrt" else 0)
        assert codes(report).count("engine-missing") == (0 if wanted == "cpu" else 1)  # jmla's

    def test_the_next_precision_is_taken(self, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root")
        store(bundle, "mert", "fp16", here, rejected="cosine 0.2", sha256=None, bytes=0, verification=None)
        store(bundle, "mert", "fp32", here, verification=None, not_verified="no GPU")
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == ("tensorrt", 0)
        states = {one.precision: (one.status, one.used) for one in report.engines.engines if one.stage == "mert"}
        assert states == {"fp16": ("rejected", False), "fp32": ("present", True)}
        assert fix(report, "engine-unverified") == (
            f"edge-reclass verify {shlex.quote(str(bundle))} --stage mert --device tensorrt"
        )

    def test_a_stage_whose_engines_were_all_rejected_runs_on_the_cpu(self, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root")
        for precision in ("fp16", "fp32"):
            store(bundle, "mert", precision, here, rejected="cosine 0.2", sha256=None, bytes=0, verification=None)
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == ("tensorrt", 0)
        assert device(report, "tensorrt").notes == ("stage mert runs on the CPU",)
        assert fix(report, "engine-rejected").endswith("--stage mert --rebuild")

    def test_engines_elsewhere(self, bundle: Path, tmp_path: Path) -> None:
        report = diagnose(bundle, tmp_path / "my engines", machine=jetson(tmp_path / "root"), run=loaded("10.3.0"))
        assert report.engines.folder == str(tmp_path / "my engines" / load(bundle).digest)
        assert fix(report, "engine-missing").endswith(f"--stage mert --engines '{tmp_path}/my engines'")

    def test_a_folder_that_is_none(self, bundle: Path, tmp_path: Path) -> None:
        default_store().mkdir(parents=True)
        (default_store() / load(bundle).digest).write_text("a file")
        report = diagnose(bundle, device="tensorrt", machine=jetson(tmp_path / "root"), run=loaded("10.3.0"))
        assert "engines-unreadable" in codes(report, "problem")
        assert report.exit_code == 4
        assert not report.engines.writable

    def test_a_record_that_is_none(self, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root")
        folder = store(bundle, "mert", "fp16", here)
        (folder / RECORD).write_text("{")
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("10.3.0"))
        assert codes(report, "problem") == ["engines-unreadable", "engine-missing"]
        assert fix(report, "engines-unreadable").startswith(f"rm -r {folder} && edge-reclass build ")
        assert report.exit_code == 4

    @pytest.mark.parametrize(
        ("options", "code", "command"),
        [
            (
                {"packages": lambda name: None, "interpreter": python_of("orin-nano-6.2", sees_system_packages=False)},
                "tensorrt-missing",
                "sed -i 's/^\\(include-system-site-packages\\) *=.*/\\1 = true/' /opt/edge-reclass/venv/pyvenv.cfg",
            ),
            (
                {"packages": lambda name: None, "interpreter": python_of("thor-7.2", sees_system_packages=False)},
                "tensorrt-missing",
                "python3.10 -m venv --system-site-packages /opt/edge-reclass/venv   (and install again)",
            ),
            ({"versions": {}}, "binding-missing", install_command("tensorrt")),
            (
                {"environ": {"EDGE_RECLASS_CUDA_MEMORY": "pycuda"}},
                "binding-missing",
                "unset EDGE_RECLASS_CUDA_MEMORY   (and doctor again: it takes what is installed)",
            ),
            (
                {"versions": {"cuda-bindings": "13.1.0"}},
                "binding-newer",
                f"{pip_command()} install 'cuda-bindings==12.*'",
            ),
            (
                {"load": libraries()},
                "gpu-absent",
                "sudo usermod -aG video,render $USER   (the groups that may use the GPU; then log in again)",
            ),
        ],
    )
    def test_software_that_is_missing(
        self, options: dict[str, Any], code: str, command: str, bundle: Path, tmp_path: Path
    ) -> None:
        here = jetson(tmp_path / "root", **options)
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("10.3.0"))
        assert code in codes(report)
        assert fix(report, code) == command
        if code != "binding-newer":
            assert code in codes(report, "problem")
            assert (report.chosen, report.exit_code) == (None, 5)
            assert "not usable: " in page(report)

    def test_no_tensorrt_at_all(self, bundle: Path, tmp_path: Path) -> None:
        fake_root(tmp_path / "root", "orin-nano-7.2", tensorrt=False)
        here = jetson(tmp_path / "root", "orin-nano-7.2")
        report = diagnose(bundle, machine=here, run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == ("cpu", 0)
        assert fix(report, "tensorrt-missing") == "sudo apt-get install python3-libnvinfer"
        assert "tensorrt-missing" in codes(report, "advice")
        # Nothing is said of what could not be used anyway.
        assert "cuda-provider-missing" not in codes(report)

    @pytest.mark.parametrize(
        ("result", "words"),
        [
            (
                ToolResult(1, "", "Traceback\nImportError: libnvinfer.so.10: cannot open\n"),
                "ImportError: libnvinfer.so.10",
            ),
            (ToolResult(-11, "", ""), "killed Python with signal 11"),
            (ToolResult(None, "", "", "python did not answer within 60 s"), "did not answer"),
            (ToolResult(0, "garbage\n", ""), "ended with status 0"),
        ],
    )
    def test_tensorrt_that_cannot_be_loaded(self, result: ToolResult, words: str, bundle: Path, tmp_path: Path) -> None:
        here = jetson(tmp_path / "root")
        report = diagnose(bundle, device="tensorrt", machine=here, run=Imports(result))
        assert report.exit_code == 5
        problem = next(one for one in report.problems if one.code == "tensorrt-broken")
        assert words in problem.message
        assert problem.fix == "sudo apt-get install --reinstall libnvinfer10 python3-libnvinfer"
        broken = Imports(loaded("10.3.0").tensorrt, result)
        assert "binding-broken" in codes(diagnose(bundle, device="tensorrt", machine=here, run=broken), "problem")

    def test_heat_power_memory_and_alarms(self, bundle: Path, tmp_path: Path) -> None:
        root = fake_root(tmp_path / "root", "orin-nano-6.2")
        (root / "sys/class/thermal/thermal_zone5/temp").write_text("99500\n")
        (root / "sys/class/hwmon/hwmon2/oc1_event_cnt").write_text("3\n")
        (root / "proc/meminfo").write_text("MemTotal: 7802884 kB\nMemAvailable: 300000 kB\n")
        (root / "etc/nv_tegra_release").write_text("# R38 (release), REVISION: 2.0, GCID: 1\n")
        report = diagnose(bundle, machine=jetson(root), run=loaded("10.3.0"), bench=True)
        assert {"hot", "overcurrent", "memory-low", "l4t-untested", "power-mode", "clocks-vary"} <= set(codes(report))
        assert codes(report, "problem") == []
        assert fix(report, "power-mode") == "sudo nvpmodel -m 2"
        text = page(report)
        assert "tj-thermal is at 100 °C and slows down from 99 °C on" in text.replace("\n" + " " * 16, " ")
        assert "3 over-current events" in text

    def test_tools_that_fail_are_told(self, bundle: Path, tmp_path: Path) -> None:
        root = fake_root(tmp_path / "root", "thor-7.2")
        replace_tool(root, "usr/sbin/nvpmodel", "no\n", status=9)
        text = page(diagnose(bundle, machine=jetson(root, "thor-7.2"), run=loaded("10.16.2.10")))
        assert re.search(r"^  power mode +nvpmodel failed with status 9: no$", text, re.MULTILINE)


def rtx(root: Path, runtime: OnnxRuntime = ORT_CUDA, **options: Any) -> Machine:
    card = FakeCuda("NVIDIA GeForce RTX 4060", (8, 9), memory=8 << 30, integrated=False, version=13_000)
    host = Emulated(
        root,
        **{"load": libraries(card, FakeNvml(throttle=4)), "versions": {"nvidia-cudnn-cu13": "9.12"}, **options},
    )
    found = machines.probe(host)
    return msgspec.structs.replace(found, onnxruntime=runtime)


class TestRtx:
    def test_cuda_is_taken_where_tensorrt_is_not_there(self, bundle: Path, tmp_path: Path) -> None:
        report = diagnose(bundle, machine=rtx(tmp_path), run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == ("cuda", 0)
        assert codes(report, "problem") == []
        assert fix(report, "tensorrt-missing") == install_command("tensorrt-rtx")
        assert fix(report, "throttled") == "nvidia-smi -q -d PERFORMANCE"
        assert "54 °C, 32 of 115 W, 2505 of 3105 MHz, 6.0 GiB free" in page(report)

    def test_cuda_asked_for_and_built_without(self, bundle: Path, tmp_path: Path) -> None:
        twice = {"onnxruntime": "1.23.2", "onnxruntime-gpu": "1.23.2"}
        report = diagnose(bundle, device="cuda", machine=rtx(tmp_path, ORT, versions=twice), run=loaded("10.3.0"))
        assert (report.chosen, report.exit_code) == (None, 5)
        assert codes(report, "problem") == ["cuda-provider-missing"]
        assert "onnxruntime-twice" in codes(report, "advice")
        assert fix(report, "onnxruntime-twice") == (
            f"{pip_command()} uninstall -y onnxruntime onnxruntime-gpu && {install_command('gpu')}"
        )

    def test_a_gpu_that_is_not_there(self, bundle: Path, tmp_path: Path) -> None:
        here = rtx(tmp_path, load=libraries())
        report = diagnose(bundle, device="cuda", machine=here, run=loaded("10.3.0"))
        assert report.exit_code == 5
        assert fix(report, "gpu-absent").startswith("nvidia-smi ")
        auto = diagnose(bundle, machine=here, run=loaded("10.3.0"))
        assert (auto.chosen, auto.exit_code, codes(auto)) == ("cpu", 0, [])

    def test_engines_of_another_machine_are_listed(self, bundle: Path, tmp_path: Path) -> None:
        orin = jetson(tmp_path / "orin")
        store(bundle, "mert", "fp16", orin)
        whole = diagnose(bundle, machine=rtx(tmp_path, load=libraries()), run=loaded("10.3.0"))
        (one,) = whole.engines.engines
        assert (one.stage, one.status, one.used) == ("mert", "other", False)
        assert one.reason == "whole; built for TensorRT 10.3.0 for SM 8.7 (Orin, l4t-36.4.3)"
        (Path(one.folder or "") / "engine.plan").write_bytes(b"")
        report = diagnose(bundle, machine=rtx(tmp_path, load=libraries()), run=loaded("10.3.0"))
        assert codes(report, "problem") == ["engine-damaged"]
        assert report.exit_code == 0

    def test_tensorrt_rtx(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "rtx").mkdir()
        here = rtx(
            tmp_path,
            packages=lambda name: tmp_path / "rtx" if name == "tensorrt_rtx" else None,
            versions={"pycuda": "2026.1", "tensorrt-rtx": "1.7.1.116"},
        )
        report = diagnose(bundle, device="tensorrt", machine=here, run=loaded("1.7.1.116", "tensorrt-rtx"))
        assert report.engines.target == "TensorRT-RTX 1.7.1.116 for SM 8.9"
        assert (report.exit_code, codes(report, "problem")) == (4, ["engine-missing"])


class TestBundle:
    def test_no_bundle(self, tmp_path: Path) -> None:
        report = diagnose(tmp_path / "nowhere", device="cpu")
        assert (report.chosen, report.exit_code) == (None, 4)
        assert codes(report, "problem") == ["bundle-invalid"]
        assert "cannot be used, see below" in page(report)

    def test_a_file_that_was_altered_and_one_that_is_gone(self, bundle: Path) -> None:
        with (bundle / "heads/mert.onnx").open("ab") as file:
            file.write(b"x")
        (bundle / "encoders/jmla.fp16.onnx").unlink()
        report = diagnose(bundle)
        assert (report.chosen, report.exit_code) == (None, 4)
        assert len(report.bundle.faults) == 2
        assert codes(report, "problem") == ["bundle-invalid"] * 2
        assert "2 files are wrong" in page(report)

    def test_untrained_weights(self, bundle: Path) -> None:
        edit_manifest(bundle, provenance={"mert": {"random_init": True}})
        report = diagnose(bundle, device="cpu")
        assert report.bundle.untrained == ("mert",)
        assert "--allow-random" in fix(report, "bundle-untrained")

    def test_no_onnxruntime(self, bundle: Path, tmp_path: Path) -> None:
        here = msgspec.structs.replace(
            rtx(tmp_path, load=libraries()), onnxruntime=None, reasons={"onnxruntime": "ONNX Runtime is not installed"}
        )
        for wanted in ("cpu", "auto", "tensorrt"):
            report = diagnose(bundle, device=wanted, machine=here, run=loaded("10.3.0"))
            assert (report.chosen, report.exit_code) == (None, 5)
            assert "onnxruntime-missing" in codes(report, "problem")
            assert fix(report, "onnxruntime-missing") == install_command("cpu")
        card = msgspec.structs.replace(rtx(tmp_path), onnxruntime=None)
        report = diagnose(bundle, device="cpu", machine=card, run=loaded("10.3.0"))
        assert fix(report, "onnxruntime-missing") == install_command("gpu")

    def test_two_onnxruntimes_that_broke_each_other(self, bundle: Path, tmp_path: Path) -> None:
        twice = {"onnxruntime": "1.23.2", "onnxruntime-gpu": "1.23.2"}
        here = machines.probe(
            Emulated(tmp_path, load=libraries(), versions=twice, modules={"onnxruntime": ImportError("no symbol")})
        )
        report = diagnose(bundle, device="cpu", machine=here, run=loaded("10.3.0"))
        assert codes(report, "problem") == ["onnxruntime-missing"]
        assert fix(report, "onnxruntime-missing") == fix(report, "onnxruntime-twice")
        assert fix(report, "onnxruntime-twice").endswith(f"&& {install_command('cpu')}")

    def test_too_little_space_and_a_folder_that_cannot_be_written(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = jetson(tmp_path / "root")
        disk = Disk(str(default_store() / load(bundle).digest), str(bundle), 1000, 10**9)
        here = msgspec.structs.replace(here, disks=(disk,))
        monkeypatch.setattr("edge_reclass_doctor.engines.os.access", lambda path, mode: False)
        report = diagnose(bundle, machine=here, run=loaded("10.3.0"))
        assert {"disk-low", "engines-not-writable"} <= set(codes(report))
        assert fix(report, "engines-not-writable").startswith("sudo edge-reclass build ")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_nothing_is_written(bundle: Path, tmp_path: Path) -> None:
    here = jetson(tmp_path / "root")
    folder = store(bundle, "mert", "fp16", here)
    (folder / "engine.plan").write_bytes(b"x")
    before = snapshot(tmp_path)
    diagnose(bundle, machine=jetson(tmp_path / "root"), run=loaded("10.3.0"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("board", sorted(BOARDS))
def test_the_page_is_narrow_and_plain(board: str, bundle: Path, tmp_path: Path) -> None:
    here = jetson(tmp_path / "root", board)
    store(bundle, "mert", "fp16", here, "9.9.9")
    text = page(diagnose(bundle, machine=here, run=loaded(BOARDS[board].tensorrt)))
    for line in text.splitlines():
        indivisible = max(map(len, line.split()), default=0) > WIDTH - 20
        assert len(line) <= WIDTH or line.lstrip().startswith("→ ") or indivisible, line
        assert line == line.rstrip()
        assert line.isprintable()


def test_control_characters_cannot_reach_the_terminal(bundle: Path, tmp_path: Path) -> None:
    root = fake_root(tmp_path / "root", "orin-nano-6.2")
    (root / "proc/device-tree/model").write_text("Jetson \x1b[2J\n\x07evil")
    assert all(
        line.isprintable() for line in page(diagnose(bundle, machine=jetson(root), run=loaded("1"))).splitlines()
    )


def test_the_command_uses_the_probe(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = jetson(tmp_path / "root")
    asked: dict[str, Any] = {}

    def probe(**options: Any) -> Machine:
        asked.update(options)
        return here

    monkeypatch.setattr(machines, "probe", probe)
    monkeypatch.setattr(machines, "run_tool", loaded("10.3.0"))
    result = CliRunner().invoke(app, [str(bundle), "--device", "tensorrt", "--engines", str(tmp_path / "e")])
    assert result.exit_code == 4, result.output
    assert asked["paths"] == (bundle, tmp_path / "e" / load(bundle).digest)
    assert "cannot run this bundle here (exit code 4)" in result.output
    monkeypatch.setenv("EDGE_RECLASS_ENGINES", str(tmp_path / "from the environment"))
    plain = json.loads(CliRunner().invoke(app, [str(bundle), "-f", "json"]).stdout)
    assert plain["engines"]["folder"] == str(tmp_path / "from the environment" / load(bundle).digest)
    assert plain["machine"]["jetson"]["power_mode"] == {"id": 1, "name": "25W"}


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("cuda", 5)])
def test_a_reader_that_leaves_changes_nothing_of_the_exit_code(device: str, code: int, tmp_path: Path) -> None:
    """As in ``edge-reclass doctor | head -1``."""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        program = "from edge_reclass.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "doctor", "--device", device, "--engines", str(tmp_path)],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=hidden,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["doctor", "inspect"])
def test_a_page_that_cannot_be_written_is_one_message(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from edge_reclass.cli import main; main()", command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written (No space left on device)\n"


def _codes_in_source() -> set[str]:
    calls = re.compile(r"Problem\(\s*f?\"([a-z0-9-]+?)(?:-\{[^\"]*)?\"")
    found = {code for file in SOURCE.glob("*.py") for code in calls.findall(file.read_text(encoding="utf-8"))}
    return (found - {"engine"}) | {"engine-missing", "engine-stale"}


def test_the_documentation_knows_every_code_and_field() -> None:
    text = DOCS.read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE))
    assert listed >= _codes_in_source(), _codes_in_source() - listed
    assert {"bundle-invalid", "hot", "engine-damaged", "bundle-untrained"} <= _codes_in_source()
    for kind in (Report, Machine):
        missing = {one.name for one in msgspec.structs.fields(kind) if f"`{one.name}`" not in text}
        assert not missing, (kind, missing)
