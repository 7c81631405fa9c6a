"""The command `edge-reclass export all`: a YAML file becomes calls of the recipes' commands."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_reclass.bundle.loading import load
from edge_reclass.errors import UsageError
from edge_reclass_export.cli import app
from edge_reclass_export.commands import assemble
from edge_reclass_export.errors import CheckpointError, ParityError
from edge_reclass_export.recipe import Planned, Recipe
from edge_reclass_export.recipes import musicnn as musicnn_export
from export.test_bundle_writer import contents, head_file


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


@pytest.fixture
def wheel_beside(made_wheel_file: Path, tmp_path: Path, any_wheel_accepted: None) -> Path:
    head_file(tmp_path / "head.npz", features=200)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / made_wheel_file.name).write_bytes(made_wheel_file.read_bytes())
    return tmp_path


WHEEL = "wheels/musicnn-0.1.0-py3-none-any.whl"


def two_stages(second: str = "head: head.npz", top: str = "genres: A,B,C") -> str:
    return (
        f"bundle: mine\n{top}\nstages:\n"
        f"  - {{recipe: musicnn, wheel: {WHEEL}, variant: msd, stage: first, head: head.npz}}\n"
        f"  - {{recipe: musicnn, wheel: {WHEEL}, variant: mtt, stage: second, {second}}}\n"
    )


def test_a_real_bundle(wheel_beside: Path) -> None:
    run(written(wheel_beside, two_stages()))
    bundle = load(wheel_beside / "mine")
    bundle.verify()
    assert bundle.manifest.name == "mine"
    assert [stage.name for stage in bundle.manifest.stages] == ["first", "second"]
    assert bundle.manifest.default_policy == "soft"
    assert sorted(path.name for path in wheel_beside.iterdir()) == ["head.npz", "mine", "reclass.yaml", "wheels"]
    assert set(contents(wheel_beside / "mine")) == {"bundle.yaml", *bundle.manifest.files}


def test_every_stage_is_planned_before_the_first_is_exported(
    wheel_beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def recorder(recipe: Recipe) -> Recipe:
        @wraps(recipe.plan)
        def record(**arguments: Any) -> Planned:
            made = recipe.plan(**arguments)
            seen.append(f"plan {made.stage}")

            def export(root: Path, progress: Any) -> Any:
                seen.append(f"export {made.stage}")
                return made.run(root, progress)

            return replace(made, run=export)

        return replace(recipe, plan=record)

    monkeypatch.setattr(assemble, "RECIPES", {name: recorder(recipe) for name, recipe in assemble.RECIPES.items()})
    run(written(wheel_beside, two_stages()))
    assert seen == ["plan first", "plan second", "export first", "export second"]


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ("head: wide.npz", CheckpointError, "takes 300 values, the encoder gives 200"),
        ("head: two.npz", CheckpointError, "has 2 classes, but there are 3 names"),
        ("head: named.npz", CheckpointError, r"its classes are \['X', 'Y', 'Z'\], expected \['A', 'B', 'C'\]"),
        ("head: deep.npz", UsageError, "2 linear layers and does not say"),
        ("tags: false", UsageError, "the stage 'second' has no head; give one with head:"),
        ("head: head.npz, embedding: all", UsageError, "all"),
    ],
)
def test_a_misfit_of_the_last_stage_is_found_before_the_first_export(
    second: str, error: type[Exception], message: str, wheel_beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("an export began")

    head_file(wheel_beside / "wide.npz", features=300)
    head_file(wheel_beside / "two.npz", features=200, classes=2)
    np.savez(wheel_beside / "named.npz", kernel=np.ones((200, 3)), bias=np.ones(3), genres=["X", "Y", "Z"])
    deep = {"kernel_0": np.ones((200, 5)), "bias_0": np.ones(5), "kernel_1": np.ones((5, 3)), "bias_1": np.ones(3)}
    np.savez(wheel_beside / "deep.npz", **deep)
    monkeypatch.setattr(musicnn_export, "musicnn_encoder", never)
    before = sorted(wheel_beside.iterdir())
    with pytest.raises(error, match=message):
        run(written(wheel_beside, two_stages(second)))
    assert sorted(wheel_beside.iterdir()) == sorted([*before, wheel_beside / "reclass.yaml"])


def test_two_stages_of_one_name(wheel_beside: Path) -> None:
    text = two_stages().replace("stage: second", "stage: first")
    with pytest.raises(UsageError, match=r"stages\[1\]: a stage before it is called 'first' too"):
        run(written(wheel_beside, text))
    assert not (wheel_beside / "mine").exists()


def test_genres_that_the_first_heads_file_names_serve_for_all(wheel_beside: Path) -> None:
    np.savez(wheel_beside / "named.npz", kernel=np.ones((200, 3)), bias=np.ones(3), genres=["X, or Y", "Y", "Z"])
    text = two_stages(top="").replace("head: head.npz", "head: named.npz", 1)
    run(written(wheel_beside, text))
    assert load(wheel_beside / "mine").manifest.genres == ["X, or Y", "Y", "Z"]


@pytest.mark.parametrize("existing", [False, True])
def test_an_export_that_fails_midway_leaves_nothing_half_made(
    existing: bool, wheel_beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(wheel_beside, two_stages())
    if existing:
        run(config)
    before = contents(wheel_beside)
    calls: list[str] = []
    real = musicnn_export.musicnn_encoder

    def fails_the_second_time(*arguments: Any, **options: Any) -> Any:
        calls.append("called")
        if len(calls) == 2:
            raise ParityError("made up")
        return real(*arguments, **options)

    monkeypatch.setattr(musicnn_export, "musicnn_encoder", fails_the_second_time)
    config.write_text(config.read_text().replace("variant: msd", "variant: msd, float16-cast: true"))
    before = contents(wheel_beside)
    with pytest.raises(ParityError, match="made up"):
        run(config)
    assert contents(wheel_beside) == before
    monkeypatch.undo()


def test_a_stage_that_is_replaced_in_a_bundle_that_is_there(wheel_beside: Path) -> None:
    run(written(wheel_beside, two_stages()))
    before = contents(wheel_beside / "mine")
    only = two_stages().replace("genres: A,B,C\n", "").splitlines()[:3]
    run(written(wheel_beside, "\n".join(only).replace("head: head.npz", "float16-cast: true")))
    bundle = load(wheel_beside / "mine")
    bundle.verify()
    after = contents(wheel_beside / "mine")
    assert {file for file in after if after[file] != before[file]} == {
        "bundle.yaml",
        "encoders/first.fp32.onnx",
        "reference/cascade.npz",
        "reference/first.npz",
    }
    assert set(after) == set(before)


def test_the_yaml_of_the_docs_runs_as_it_stands(tmp_path: Path) -> None:
    """With tiny checkpoints under the names that it has."""
    torch = pytest.importorskip("torch", reason="the export needs torch")
    from export import mert_maker, openjmla_maker
    from export.test_fma_mlp import GENRES, msd_model

    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    text, *_ = re.findall(r"```yaml\n(bundle:.*?)```", page, flags=re.DOTALL)
    msd_model(tmp_path / "msd_model.pth")
    mert_maker.write(tmp_path / "MERT-v1-330M", mert_maker.config("330m", **mert_maker.SHALLOW))
    mert_maker.write_head(tmp_path / "mert_head.pth", features=64, classes=16)
    openjmla_maker.write_encoder_file(tmp_path / "epoch_20.pth")
    torch.save({"weight": torch.ones(16, openjmla_maker.WIDTH)}, tmp_path / "jmla_head.pth")
    run(written(tmp_path, text))
    bundle = load(tmp_path / "my-bundle")
    bundle.verify()
    assert [stage.name for stage in bundle.manifest.stages] == ["fma", "mert", "jmla"]
    assert tuple(bundle.manifest.genres) == GENRES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected the keys bundle, genres, stages"),
        ("bundle: [", "not valid YAML"),
        ("bundle: a\nstages: []", "stages: expected a list of recipes"),
        ("stages: [{recipe: mert}]", "bundle: expected a directory, got None"),
        ("bundle: a\nstage: []", "unknown keys stage"),
        ("bundle: a\nstages: [mert]", "recipe: expected one of fma-mlp, mert, openjmla, .*, got 'mert'"),
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
