"""What a process that runs edge-reclass does and does not do: imports, sockets, pickle, stray modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import bundles
import edge_reclass

HEAVY = ("torch", "transformers", "librosa", "numba", "sklearn", "onnx", "scipy", "pandas")
RUNTIME = Path(edge_reclass.__file__).parent


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    return bundles.make_bundle(tmp_path_factory.mktemp("bundle"), stages, accept=1.0)


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("music") / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(3 * 22_050), 22_050)
    return path


def loaded(code: str, *arguments: object) -> set[str]:
    return set(json.loads(python(f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)))", *arguments)))


def test_import_is_light() -> None:
    modules = loaded("import edge_reclass")
    assert not modules & {*HEAVY, "numpy", "onnxruntime", "typer"}
    everything = loaded(
        "import edge_reclass.cascade, edge_reclass.run.lanes, edge_reclass.features, edge_reclass.audio\n"
        "import edge_reclass.cli"
    )
    assert not everything & {*HEAVY, "onnxruntime", "rich.progress", "av"}


def test_help_is_light() -> None:
    """Help imports every plug-in for its line, and none of what they work with."""
    modules = loaded(
        "import io, sys\n"
        "from contextlib import redirect_stdout, suppress\n"
        "from edge_reclass.cli import main\n"
        "sys.argv = ['edge-reclass', '--help']\n"
        "with redirect_stdout(io.StringIO()), suppress(SystemExit):\n"
        "    main()\n"
    )
    assert not modules & {*HEAVY, "numpy", "onnx", "onnxruntime"}


TELEMETRY = """
import os, sys
from edge_reclass import Cascade
with Cascade.open(sys.argv[1]) as cascade:
    assert cascade.classify(sys.argv[2]).status == "ok"
    # ONNX Runtime would connect from a thread of its own, behind Python's back.
    sockets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd != "0"
               if os.path.exists(f"/proc/self/fd/{fd}")]
assert not [name for name in sockets if name.startswith("socket:")], sockets
"""


@pytest.mark.skipif(sys.platform != "linux", reason="open sockets are read from /proc")
def test_onnxruntime_sends_nothing_home(bundle: Path, track: Path, tmp_path: Path) -> None:
    """ONNX Runtime 1.29 and later has telemetry, which leaves files in the home of whoever has not switched it off."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    command = [sys.executable, "-c", TELEMETRY, str(bundle), str(track)]
    subprocess.run(command, check=True, timeout=120, env=environment | {"HOME": str(tmp_path / "home")})
    assert not list((tmp_path / "home").rglob("*"))


def test_classify_is_light(bundle: Path, track: Path) -> None:
    code = (
        "import sys; from edge_reclass import Cascade\n"
        "with Cascade.open(sys.argv[1]) as c: assert c.classify(sys.argv[2]).status == 'ok'"
    )
    assert not loaded(code, bundle, track) & {*HEAVY, "typer", "rich"}


def test_no_socket_is_opened_during_classify(bundle: Path, track: Path) -> None:
    """Python tells its audit hooks of every socket, whoever makes it; loading the socket module is not using it."""
    code = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith(("socket.", "urllib", "http")) else None)
import edge_reclass.cli
sys.argv = ["edge-reclass", "classify", sys.argv[1], "--bundle", sys.argv[2], "--jobs", "2"]
try:
    edge_reclass.cli.main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
assert not seen, seen
import socket
socket.socket().close()
assert seen == ["socket.__new__"], f"the hook does not see sockets: {seen}"
"""
    python(code, track.parent, bundle)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open sockets are counted in /proc/self/fd")
def test_no_native_library_holds_a_socket(bundle: Path, track: Path) -> None:
    code = """
import os, sys
from edge_reclass import Cascade
def sockets():
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.lexists(link))
before = sockets()
with Cascade.open(sys.argv[1]) as cascade:
    assert cascade.classify(sys.argv[2]).status == "ok"
    assert sockets() == before, sockets()
"""
    python(code, bundle, track)


def test_the_runtime_uses_no_pickle() -> None:
    for path in RUNTIME.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path


def test_no_stray_modules_beside_the_packages() -> None:
    """In an editable install a .py file here would become a top-level module."""
    for folder in ("runtime", "export"):
        root = RUNTIME.parents[1] / folder
        if root.exists() and (root.parent / "pyproject.toml").exists():
            assert [path.name for path in root.iterdir() if path.suffix == ".py"] == []


def test_public_names() -> None:
    assert sorted(edge_reclass.__all__) == edge_reclass.__all__
    for name in edge_reclass.__all__:
        assert getattr(edge_reclass, name) is not None
        assert name in dir(edge_reclass)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edge_reclass.nothing


def test_the_command_line_leaves_openblas_one_thread_unless_told_otherwise() -> None:
    code = (
        "import os, edge_reclass.cli, numpy as np; a = np.ones((512, 512), np.float32); a @ a;"
        "print(os.environ['OPENBLAS_NUM_THREADS'], len(os.listdir('/proc/self/task')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}

    def said(more: dict[str, str]) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code], env=environment | more, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert said({}) == ["1", "1"]
    assert said({"OPENBLAS_NUM_THREADS": "2"})[0] == "2"
