"""The command `edge-reclass export musicnn`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from edge_reclass.bundle.loading import load
from edge_reclass.errors import UsageError
from edge_reclass_export import musicnn_wheel
from edge_reclass_export.cli import app
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.musicnn_wheel import fetch_wheel
from export.checkpoint_maker import write_wheel
from export.test_bundle_writer import head_file


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.usefixtures("any_wheel_accepted")
def test_plain_file(made_wheel_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "musicnn.onnx"
    text = run("musicnn", "--wheel", made_wheel_file, "--variant", "mtt", "--embedding", "pool", "--tags", "-o", output)
    described = yaml.safe_load(text)
    assert described["bytes"] == output.stat().st_size
    assert (described["dim"], described["window_samples"]) == (1506, 48_128)
    assert described["provenance"]["tag_names"][0] == "mtt 0"


@pytest.mark.usefixtures("any_wheel_accepted")
def test_bundle(made_wheel_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    head = head_file(tmp_path / "head.npz", features=200)
    text = run("musicnn", "--wheel", made_wheel_file, "--bundle", root, "--head", head, "--genres", "Blues, Jazz,Rock")
    bundle = load(root)
    bundle.verify()
    assert bundle.manifest.genres == ["Blues", "Jazz", "Rock"]
    assert yaml.safe_load(text)["stages"][0]["name"] == "musicnn-msd"
    assert (root / "encoders" / "musicnn-msd.fp32.onnx").is_file()
    assert (root / "LICENSE.musicnn").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --output FILE or --bundle DIR"),
        (("--output", "a.onnx", "--bundle", "b"), "either --output FILE or --bundle DIR"),
        (("--output", "a.onnx", "--genres", "A,B"), "need --bundle"),
        (("--output", "a.onnx", "--variant", "vgg"), "no variant 'vgg'"),
        (("--output", "a.onnx", "--embedding", "tags"), "no embedding 'tags'"),
        (("--output", "a.onnx", "--wheel", "absent.whl"), "cannot read the wheel"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        run("musicnn", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_pinned_hash_holds_on_the_command_line(made_wheel_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected f38a4890"):
        run("musicnn", "--wheel", made_wheel_file, "--output", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_failed_fetch_says_what_pip_said(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=1, stderr="WARNING: retry\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UsageError, match=r"ERROR: No matching distribution\n.*--wheel"):
        fetch_wheel()
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in commands[0] and "musicnn==0.1.0" in commands[0]


def test_a_fetched_file_is_checked_before_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def pip(command: list[str], **_: object) -> SimpleNamespace:
        write_wheel(Path(command[command.index("--dest") + 1]) / "musicnn-0.1.0-py3-none-any.whl")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(musicnn_wheel.subprocess, "run", pip)
    with pytest.raises(CheckpointError, match="expected f38a4890"):
        fetch_wheel(keep=tmp_path / "kept.whl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "First"), "cannot be called"),
        (("--bundle", "head.npz"), "is no directory"),
        (("--head", "head.npz"), "--genres"),
        (
            ("--head", "head.npz", "--genres", "A,B,C", "--embedding", "pool"),
            "takes 200 values, the encoder gives 1506",
        ),
    ],
)
def test_misfits_are_refused_before_the_wheel_is_fetched(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> None:
        pytest.fail("the wheel was fetched")

    monkeypatch.setattr(musicnn_wheel, "fetch_wheel", never)
    monkeypatch.chdir(tmp_path)
    head_file(tmp_path / "head.npz", features=200)
    with pytest.raises((UsageError, CheckpointError), match=message):
        run("musicnn", *(() if "--bundle" in arguments else ("--bundle", "mine")), *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["head.npz"]
