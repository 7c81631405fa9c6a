"""A new encoder is one module and one line of the registry: no other file knows of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from edge_reclass import Cascade
from edge_reclass.bundle import load
from edge_reclass.errors import UsageError
from edge_reclass_export.cli import export_app
from edge_reclass_export.commands.verify import verify
from edge_reclass_export.recipe import Recipe
from edge_reclass_export.recipes import RECIPES
from export import toy_recipe
from export.test_bundle_writer import head_file
from synth import music


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights and a head for the toy, which is registered."""
    monkeypatch.setitem(RECIPES, "toy", toy_recipe.RECIPE)  # the one line
    np.save(tmp_path / "weights.npy", np.random.default_rng(5).standard_normal((4_000, 8)) / 64)
    head_file(tmp_path / "head.npz", features=8)
    return tmp_path


def export(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(export_app(), [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def stage_options(folder: Path) -> list[str | Path]:
    return ["--bundle", folder / "mine", "--head", folder / "head.npz", "--genres", "A,B,C"]


def test_a_recipe_of_one_module_exports_opens_and_verifies(folder: Path) -> None:
    done = export("toy", folder / "weights.npy", "--gain", "2", *stage_options(folder))
    assert "provenance" in done.stdout and "next: edge-reclass verify" in done.stderr
    bundle = load(folder / "mine")
    assert [(stage.name, stage.encoder.dim) for stage in bundle.manifest.stages] == [("toy", 8)]
    with Cascade.open(bundle) as cascade:
        (answer,) = cascade.answers(music(2.0), 44_100)
    assert answer.embedding.shape == (8,)
    import typer

    app = typer.Typer()
    app.command()(verify)
    checked = CliRunner().invoke(app, [str(folder / "mine")])
    assert checked.exit_code == 0 and "ok" in checked.stdout


def test_export_all_knows_it_too(folder: Path) -> None:
    stage = "{recipe: toy, weights: weights.npy, gain: 2, head: head.npz}"
    (folder / "reclass.yaml").write_text(f"bundle: theirs\ngenres: [A, B, C]\nstages: [{stage}]\n")
    export("all", "--config", folder / "reclass.yaml")
    export("toy", folder / "weights.npy", "--gain", "2", *stage_options(folder))
    one, other = (load(folder / name).manifest for name in ("theirs", "mine"))
    assert one.files == other.files


def test_its_own_options_stand_beside_those_of_every_recipe(folder: Path) -> None:
    text = export("toy", "--help").stdout
    assert "Export the toy encoder." in text and "WEIGHTS" in text
    for option in ("--gain", "--bundle", "--head", "--stage", "--genres", "--reference-audio", "--activation"):
        assert option in text, option
    assert "--excerpt" not in text and "--output" not in text
    with pytest.raises(UsageError, match="--gain: expected a positive number, got -1"):
        export("toy", folder / "weights.npy", "--gain", "-1", *stage_options(folder))


def test_every_recipe_of_the_registry_has_its_name() -> None:
    assert list(RECIPES) == ["fma-mlp", "mert", "openjmla", "musicnn", "efficientat", "yamnet", "musicnn-torch"]
    assert all(isinstance(recipe, Recipe) and recipe.name == name for name, recipe in RECIPES.items())
