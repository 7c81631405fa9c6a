"""``edge-reclass export all``: a bundle's stages one after another, as a YAML file says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from edge_reclass.errors import UsageError
from edge_reclass_export.engine.report import say
from edge_reclass_export.recipe import Planned, Progress, Recipe
from edge_reclass_export.recipes import RECIPES

_TOP_KEYS = ("bundle", "genres", "stages")


def assemble(
    config: Annotated[Path, typer.Option(help="YAML file: bundle, stages, and genres for a new bundle.")],
) -> None:
    """Export all stages that a YAML file lists, in its order, into one bundle.

    Each entry of `stages` has `recipe` and that recipe's options by their names, without the dashes in front; relative
    paths count from the file's folder. Every checkpoint, head and list of genres is checked before the first stage is
    exported, and the bundle appears, or changes, when the last one is there.

    Exit codes: 0 good, 2 wrong usage, 4 a checkpoint, a head or the bundle is invalid.
    """
    progress = Progress()
    calls = _calls(config)
    bundle: Path = calls[0][1]["bundle"]
    planned = _planned(config, calls)
    progress(f"{len(planned)} stages read and checked: {', '.join(plan.stage for plan in planned)}")
    from edge_reclass.bundle import MANIFEST, load
    from edge_reclass_export.bundle_files import assembled

    there = [MANIFEST, *load(bundle).manifest.files] if (bundle / MANIFEST).exists() else []
    with assembled(bundle, there) as folder:
        for number, plan in enumerate(planned, start=1):
            say(f"stage {number} of {len(planned)}: {plan.stage}")
            for note in plan.run(folder, progress).notes:
                say(note)
    megabytes = sum(entry.bytes for entry in load(bundle).manifest.files.values()) / 1e6
    say(f"done in {progress.seconds:.0f} s: {bundle}, {megabytes:.0f} MB; next: edge-reclass verify {bundle}")


def _planned(config: Path, calls: list[tuple[str, dict[str, Any]]]) -> list[Planned]:
    """Every stage checked, each with the genres that the file or a stage before it names."""
    from edge_reclass.bundle import MANIFEST, load

    bundle: Path = calls[0][1]["bundle"]
    there = [entry.name for entry in load(bundle).manifest.stages] if (bundle / MANIFEST).exists() else []
    planned: list[Planned] = []
    genres: list[str] = []
    for number, (recipe, arguments) in enumerate(calls):
        where = f"{config}: stages[{number}]"
        if genres and not arguments.get("genres"):
            arguments = {**arguments, "genres": genres}
        plan = RECIPES[recipe].plan(**arguments)
        if plan.stage in [before.stage for before in planned]:
            raise UsageError(
                f"{where}: a stage before it is called {plan.stage!r} too; give it another name with stage:"
            )
        if not plan.has_head and plan.stage not in there:
            raise UsageError(f"{where}: the stage {plan.stage!r} has no head; give one with head:")
        genres = genres or list(plan.genres)
        planned.append(plan)
    return planned


def _calls(config: Path) -> list[tuple[str, dict[str, Any]]]:
    """Recipe and arguments of each stage. Raises ``UsageError`` where the file does not say that."""
    plain = _read(config)
    if unknown := [key for key in plain if key not in _TOP_KEYS]:
        raise UsageError(f"{config}: unknown keys {', '.join(map(str, unknown))}; expected {', '.join(_TOP_KEYS)}")
    bundle, stages = plain.get("bundle"), plain.get("stages")
    if not isinstance(bundle, str) or not bundle:
        raise UsageError(f"{config}: bundle: expected a directory, got {bundle!r}")
    if not isinstance(stages, list) or not stages:
        raise UsageError(f"{config}: stages: expected a list of recipes, got {stages!r}")
    calls = []
    for number, stage in enumerate(stages):
        where = f"{config}: stages[{number}]"
        if not isinstance(stage, dict) or stage.get("recipe") not in RECIPES:
            found = stage.get("recipe") if isinstance(stage, dict) else stage
            raise UsageError(f"{where}: recipe: expected one of {', '.join(RECIPES)}, got {found!r}")
        options = {str(key).replace("-", "_"): value for key, value in stage.items() if key != "recipe"}
        options["bundle"] = bundle
        if number == 0 and "genres" in plain:  # the others find them in the bundle
            options.setdefault("genres", plain["genres"])
        calls.append((stage["recipe"], _arguments(where, RECIPES[stage["recipe"]], options, config.parent)))
    return calls


class _Loader(yaml.SafeLoader):
    """SafeLoader for which ``excerpt: 10:20`` is text; YAML 1.1 takes it for 620, ten minutes and twenty seconds."""

    def construct_integer(self, node: yaml.ScalarNode) -> Any:
        return node.value if ":" in node.value else self.construct_yaml_int(node)

    def construct_decimal(self, node: yaml.ScalarNode) -> Any:
        return node.value if ":" in node.value else self.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_decimal)


def _read(config: Path) -> dict[Any, Any]:
    try:
        plain = yaml.load(config.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"cannot read {config}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{config}: not valid YAML: {error}") from error
    if not isinstance(plain, dict):
        raise UsageError(f"{config}: expected the keys {', '.join(_TOP_KEYS)}")
    return plain


def _arguments(where: str, recipe: Recipe, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``options`` as the recipe's arguments, each of the type that the recipe declares."""
    parameters = inspect.signature(recipe.plan, eval_str=True).parameters
    if unknown := [name for name in options if name not in parameters]:
        known = ", ".join(name.replace("_", "-") for name in parameters)
        raise UsageError(f"{where}: unknown options {', '.join(unknown)}; expected some of {known}")
    needed = [name for name, found in parameters.items() if found.default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in options]:
        raise UsageError(f"{where}: {', '.join(missing)} is missing")

    def path(kind: type, value: Any) -> Path:
        if kind is not Path or not isinstance(value, str):
            raise ValueError(f"expected a path, got {value!r}")
        return folder / Path(value).expanduser()

    arguments: dict[str, Any] = {}
    for name, value in options.items():
        if name == "genres" and isinstance(value, list):
            value = ",".join(map(str, value))
        kind = parameters[name].annotation.__args__[0]  # of Annotated
        if kind in (str, str | None) and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)  # layer: 6, excerpt: 30
        if kind == list[Path] and isinstance(value, str):
            value = [value]
        try:
            arguments[name] = msgspec.convert(value, kind, dec_hook=path)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(f"{where}: {name}: {error}, got {value!r}") from error
        for file in arguments[name] if isinstance(arguments[name], list) else [arguments[name]]:
            if isinstance(file, Path) and name != "bundle" and not file.exists():
                raise UsageError(f"{where}: {name}: {file} does not exist")
    return arguments
