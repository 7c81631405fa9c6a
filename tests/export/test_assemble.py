"""The command `edge-reclass export all`: a YAML file becomes calls of the recipes' commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_reclass.bundle import load
from edge_reclass.errors import UsageError
from edge_reclass_export.cli import app
from edge_reclass_export.commands import assemble
from export.test_bundle_writer import head_file


def run(config: Path) -> str:
    result = CliRunner().invoke(app, ["all", "--config", str(config)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def written(folder: Path, text: str) -> Path:
    (folder / "reclass.yaml").write_text(text, encoding="utf-8")
    return folder / "reclass.yaml"


GOOD = """
bundle: out/mine
genres: [Blues, "No", Rock]
stages:
  - {recipe: fma-mlp, checkpoint: msd.pth}
  - {recipe: mert, checkpoint: mert, head: head.pth, layer: 6, window-seconds: 10, reference-audio: [a.wav]}
"""


def test_options_become_arguments(tmp_path: Path) -> None:
    for name in ("msd.pth", "head.pth", "a.wav"):
        (tmp_path / name).touch()
    (tmp_path / "mert").mkdir()
    calls = assemble._calls(written(tmp_path, GOOD))
    assert calls == [
        ("fma-mlp", {"checkpoint": tmp_path / "msd.pth", "bundle": tmp_path / "out/mine", "genres": "Blues,No,Rock"}),
        (
            "mert",
            {
                "checkpoint": tmp_path / "mert",
                "head": tmp_path / "head.pth",
                "layer": "6",
                "window_seconds": 10.0,
                "reference_audio": [tmp_path / "a.wav"],
                "bundle": tmp_path / "out/mine",
            },
        ),
    ]


def test_stages_are_exported_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def recorder(name: str, command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def record(**_: Any) -> None:
            seen.append(name)

        return record

    recorders = {name: recorder(name, command) for name, command in assemble.RECIPES.items()}
    monkeypatch.setattr(assemble, "RECIPES", recorders)
    for name in ("msd.pth", "head.pth", "a.wav"):
        (tmp_path / name).touch()
    (tmp_path / "mert").mkdir()
    run(written(tmp_path, GOOD))
    assert seen == ["fma-mlp", "mert"]


@pytest.fixture
def wheel_beside(made_wheel_file: Path, tmp_path: Path, any_wheel_accepted: None) -> Path:
    head_file(tmp_path / "head.npz", features=200)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / made_wheel_file.name).write_bytes(made_wheel_file.read_bytes())
    return tmp_path


def test_a_real_bundle(wheel_beside: Path) -> None:
    text = "bundle: mine\ngenres: A,B,C\nstages:\n"
    for stage, variant in (("first", "msd"), ("second", "mtt")):
        wheel = "wheels/musicnn-0.1.0-py3-none-any.whl"
        text += f"  - {{recipe: musicnn, wheel: {wheel}, variant: {variant}, stage: {stage}, head: head.npz}}\n"
    run(written(wheel_beside, text))
    bundle = load(wheel_beside / "mine")
    bundle.verify()
    assert [stage.name for stage in bundle.manifest.stages] == ["first", "second"]
    assert bundle.manifest.default_policy == "soft"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected the keys bundle, genres, stages"),
        ("bundle: [", "not valid YAML"),
        ("bundle: a\nstages: []", "stages: expected a list of recipes"),
        ("stages: [{recipe: mert}]", "bundle: expected a directory, got None"),
        ("bundle: a\nstage: []", "unknown keys stage"),
        ("bundle: a\nstages: [mert]", "recipe: expected one of fma-mlp, mert, openjmla, musicnn, got 'mert'"),
        ("bundle: a\nstages: [{recipe: hubert}]", "got 'hubert'"),
        (
            "bundle: a\nstages: [{recipe: mert, depth: 3}]",
            r"stages\[0\]: unknown options depth; expected some of checkpoint",
        ),
        ("bundle: a\nstages: [{recipe: mert, checkpoint: absent}]", r"checkpoint: \S+absent does not exist"),
        ("bundle: a\nstages: [{recipe: mert, checkpoint: 5}]", "checkpoint: .*got 5"),
        ("bundle: a\nstages: [{recipe: mert, window-seconds: long}]", "window_seconds: .*got 'long'"),
        ("bundle: a\nstages: [{recipe: openjmla, random-init: 'yes'}]", "random_init: .*got 'yes'"),
        ("bundle: a\nstages: [{recipe: mert, int8: true}]", "unknown options int8"),
        ("bundle: a\nstages: [{recipe: fma-mlp}]", "checkpoint is missing"),
    ],
)
def test_files_that_do_not_say_it(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        run(written(tmp_path, text))
    assert [file.name for file in tmp_path.iterdir()] == ["reclass.yaml"]


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        run(tmp_path / "absent.yaml")


def test_numbers_and_times_of_an_excerpt(tmp_path: Path) -> None:
    (tmp_path / "msd.pth").touch()
    for value, expected in (("30", "30"), ("12.5", "12.5"), ("10:20", "10:20"), ("0:30.5", "0:30.5"), ("full", "full")):
        config = written(tmp_path, f"bundle: a\nstages: [{{recipe: fma-mlp, checkpoint: msd.pth, excerpt: {value}}}]")
        assert assemble._calls(config)[0][1]["excerpt"] == expected


def test_messages_say_how_the_file_names_the_genres(wheel_beside: Path) -> None:
    stage = "{recipe: musicnn, wheel: wheels/musicnn-0.1.0-py3-none-any.whl, head: head.npz}"
    with pytest.raises(UsageError, match=r"genres: \[A, B, \.\.\.\] in the file of export all"):
        run(written(wheel_beside, f"bundle: mine\nstages: [{stage}]"))
    run(written(wheel_beside, f"bundle: mine\ngenres: [A, B, C]\nstages: [{stage}]"))
    with pytest.raises(UsageError, match=r"given are .*leave it out: .*genres: in the file of export all"):
        run(written(wheel_beside, f"bundle: mine\ngenres: [A, B, D]\nstages: [{stage}]"))
