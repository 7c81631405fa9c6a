"""The commands `build` and `verify` as the command line mounts them: options, tables, exit codes, imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import edge_reclass_export
from edge_reclass import backends, host
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle.loading import load
from edge_reclass.cli import commands as cli
from edge_reclass.engines.trust import default_store
from edge_reclass.errors import DeviceError
from edge_reclass.host.gpu import Gpu
from export.engine_bundles import engine_bundle
from export.fake_device import ORIN, FakeDevice, header
from export.test_engine_build import FAKES, fake_tensorrt, wrong_at

__all__ = ["fake_tensorrt"]

COMMANDS = [
    EntryPoint("export", "edge_reclass_export.cli:app", cli.ENTRY_POINTS),
    EntryPoint("build", "edge_reclass_export.commands.build:build", cli.ENTRY_POINTS),
    EntryPoint("verify", "edge_reclass_export.commands.verify:verify", cli.ENTRY_POINTS),
]


class Cli:
    """Runs ``edge-reclass`` in this process, on a machine with the given GPU."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys, self._folder = monkeypatch, capsys, folder
        monkeypatch.setattr(cli, "entry_points", lambda group: COMMANDS)
        plain = cli.typer.Typer(cls=cli.Commands, rich_markup_mode=None, pretty_exceptions_enable=False)
        monkeypatch.setattr(cli, "app", plain)
        cli.app.callback()(cli._root)
        monkeypatch.delenv("EDGE_RECLASS_ENGINES", raising=False)
        self.machine(ORIN)

    def machine(self, gpu: Gpu | None, spoil: Any = None) -> None:
        def probe() -> Gpu:
            if gpu is None:
                raise DeviceError("no NVIDIA GPU: the CUDA driver cannot be loaded (libcuda.so.1)")
            return gpu

        def open_backend(name: str, *, threads: int, **own: str) -> Any:
            assert not own or name == "tensorrt", "only tensorrt has flavours"
            return FakeDevice(self._folder / "scratch", spoil) if name == "tensorrt" else OrtBackend(threads)

        self._monkeypatch.setattr(host, "probe_gpu", probe)
        self._monkeypatch.setattr(backends, "open_backend", open_backend)

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["edge-reclass", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine store of the test's own: bundles made alike have one digest."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def engines_of(bundle: Path) -> Path:
    """Where the bundle's engines lie by default."""
    return default_store() / load(bundle).digest


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fake_tensorrt: Callable[..., None],
) -> Cli:
    return Cli(tmp_path, monkeypatch, capsys)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return engine_bundle(tmp_path / "bundle")


def test_entry_points_are_those_of_the_project() -> None:
    import re

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (section,) = re.findall(r'\[project\.entry-points\."edge_reclass\.commands"\]\n((?:\w.*\n)+)', text)
    for entry in COMMANDS:
        assert f'{entry.name} = "{entry.value}"\n' in section


def test_build_and_verify(run: Cli, bundle: Path) -> None:
    status, out, err = run("build", bundle)
    assert status == 0
    assert "building with TensorRT 10.3.0 for SM 8.7 (Orin, l4t-36.4.3) into" in err and "mert: building\n" in err
    assert out.splitlines()[0].split() == ["stage", "precision", "engine", "result"]
    assert "mert   fp16       built   built in" in out and out.rstrip().endswith("verified")
    (folder,) = engines_of(bundle).glob("tensorrt-*")
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "engine.plan"]
    assert run("build", bundle)[1].splitlines()[1].split()[2:] == ["kept", "present,", "verified"]
    status, out, err = run("verify", bundle, "--device", "tensorrt")
    assert status == 0 and "fp16       engine   16" in out
    assert header(folder / "engine.plan")["workspace"] is None
    assert run("build", bundle, "--rebuild", "--workspace", "512")[0] == 0
    assert header(folder / "engine.plan")["workspace"] == 512 * 2**20


def test_the_advice_to_lower_the_batch_leads_to_an_engine_that_verifies(run: Cli, bundle: Path) -> None:
    assert run("build", bundle, "--max-batch", "4")[0] == 0
    status, out, _ = run("verify", bundle, "--device", "tensorrt", "--format", "json")
    plain, heard = json.loads(out)
    assert (heard["cascade"], heard["status"]) == (True, "not compared")
    assert (status, plain["status"], [check["batch"] for check in plain["checks"]]) == (0, "ok", [1, 4])
    (planned,) = json.loads(run("build", bundle, "--dry-run", "--format", "json")[1])
    assert planned["detail"] == (
        "stale: profile: built for waveform[1/4/4, 8000], wanted waveform[1/4/16, 8000];"
        " only that differs, so verify and the runtime can use it as it is"
    )


def test_dry_run_writes_nothing(run: Cli, bundle: Path) -> None:
    status, out, _ = run("build", bundle, "--dry-run")
    assert status == 0 and "mert   fp16       would build  missing: no engine" in out
    assert not engines_of(bundle).exists()
    run("build", bundle)
    plain = json.loads(run("build", bundle, "--dry-run", "--format", "json", "--max-batch", "2")[1])
    assert plain[0]["done"] is False and plain[0]["detail"].startswith("stale: profile: built for waveform[1/4/16")


def test_a_fallback_is_said_aloud(run: Cli, bundle: Path) -> None:
    run.machine(ORIN, wrong_at(4))
    status, out, err = run("build", bundle)
    assert status == 0 and "mert   fp32       built" in out
    assert "mert: fp16 was not taken: batch 4: cosine -1.0" in err
    run.machine(ORIN, lambda plan, batch, rows: rows * 2)
    status, out, err = run("build", bundle, "--rebuild", "--format", "json")
    assert status == 0 and json.loads(out)[0]["action"] == "cpu"
    assert "warning: mert has no engine on this device and runs with ONNX Runtime on the CPU" in err
    status, out, err = run("build", bundle, "--precision", "fp32", "--rebuild")
    assert status == 4 and "error: mert fp32: batch 1: relative error 1" in err


def test_without_a_gpu_the_device_is_not_usable(run: Cli, bundle: Path) -> None:
    assert run("verify", bundle)[0] == 0
    run.machine(None)
    status, _, err = run("build", bundle, "--rebuild")
    assert status == 5 and "TensorRT measures on the GPU while it builds" in err
    status, _, err = run("verify", bundle, "--device", "tensorrt")
    assert status == 5 and "no NVIDIA GPU" in err


def test_out_of_memory(run: Cli, bundle: Path, fake_tensorrt: Callable[..., None]) -> None:
    fake_tensorrt(fail="memory")
    status, out, err = run("build", bundle, "--verbose")
    assert status == 4 and "failed" in out
    assert "out of memory" in err and "next: free memory" in err and "mert: TensorRT error:" in err
    assert not engines_of(bundle).exists()


def test_where_engines_go(run: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RECLASS_ENGINES", str(tmp_path / "variable"))
    run("build", bundle)
    assert list((tmp_path / "variable").glob("*/tensorrt-*/engine.plan"))
    cache = tmp_path / "times.cache"
    run("build", bundle, "--engines", tmp_path / "option", "--timing-cache", cache)
    assert [path.name[:8] for path in (tmp_path / "option").glob("*/*")] == ["tensorrt"]
    assert cache.read_bytes() == b"10.3.0 0"
    monkeypatch.delenv("EDGE_RECLASS_ENGINES")
    assert not engines_of(bundle).exists()
    engines_of(bundle).parent.mkdir(parents=True)
    engines_of(bundle).write_bytes(b"")
    status, _, err = run("build", bundle)
    assert status == 2 and f"{engines_of(bundle)} " in err
    assert "--engines DIR or EDGE_RECLASS_ENGINES" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("build", "BUNDLE", "--precision", "bf16"), 2, "--precision: expected one of fp16"),
        (("build", "BUNDLE", "--stage", "x"), 2, "--stage: no stage 'x'"),
        (("build", "BUNDLE", "--flavour", "trt"), 2, "flavour: expected auto, tensorrt or tensorrt-rtx"),
        (("build", "BUNDLE", "--sm", "sm86"), 2, "--sm: expected a compute capability such as 8.6, got 'sm86'"),
        (("build", "BUNDLE", "--sm", "8.6"), 5, "builds for the GPU of this machine, Orin (SM 8.7), not for SM 8.6"),
        (("build", "BUNDLE", "--format", "xml"), 2, "--format"),
        (("build", "BUNDLE", "--timing-cache", "/absent/x"), 2, "there is no folder /absent"),
        (("build", "absent"), 4, "absent/bundle.yaml: cannot be read"),
        (("verify", "absent"), 4, "absent/bundle.yaml: cannot be read"),
        (("verify", "BUNDLE", "--format", "xml"), 2, "--format"),
    ],
)
def test_wrong_usage(run: Cli, bundle: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    got, _, err = run(*(str(bundle) if argument == "BUNDLE" else argument for argument in arguments))
    assert (got, words in err) == (status, True), err
    assert not engines_of(bundle).exists()


NO_TORCH = """
import json, sys
from edge_reclass import cli, host
from edge_reclass_export.commands.build import build
from edge_reclass_export.commands.verify import verify
from edge_reclass_export.cli import app
host.probe_gpu = lambda: host.Gpu("Orin", "8.7", "l4t-36.4.3")
cli.app.command(name="build")(build)
cli.app.command(name="verify")(verify)
status = []
for command in (["build", sys.argv[1]], ["verify", sys.argv[1]]):
    sys.argv[1:] = command
    try:
        cli.main()
    except SystemExit as stopped:
        status.append(stopped.code or 0)
    sys.argv[1:] = [command[1]]
print(json.dumps({"status": status, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_build_and_verify_import_no_torch(bundle: Path) -> None:
    """Nor onnx, which an appliance need not have; the worker is a process of its own, with stricter means below."""
    paths = os.pathsep.join([str(FAKES), *(entry for entry in sys.path if entry)])
    ended = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(bundle)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["status"] == [0, 0], ended.stderr
    # The stand-in for TensorRT reads graphs with onnx, so onnx is looked for in the sources instead.
    assert not set(found["modules"]) & {"torch", "transformers", "librosa", "sklearn", "onnxscript", "safetensors"}


def test_no_module_of_build_and_verify_imports_what_a_device_lacks() -> None:
    import ast

    package = Path(edge_reclass_export.__file__).parent
    files = [*(package / "engine").glob("*.py"), package / "commands" / "build.py", package / "commands" / "verify.py"]
    assert len(files) > 8
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] not in {"torch", "onnx", "transformers", "onnxruntime", "scipy"}, file
                own = name.startswith("edge_reclass_export")
                assert not own or name.startswith(("edge_reclass_export.engine", "edge_reclass_export.commands")), name
