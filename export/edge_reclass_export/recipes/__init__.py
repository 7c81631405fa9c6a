"""The recipes of ``edge-reclass export``, one module each; a new one is added to ``_MODULES``."""

from __future__ import annotations

from importlib import import_module

from edge_reclass_export.recipe import Recipe

_MODULES = (
    "fma_mlp",
    "mert",
    "openjmla",
    "musicnn",
    "efficientat",
    "yamnet",
    "musicnn_torch",
)


def _recipe(module: str) -> Recipe:
    recipe: Recipe = import_module(f"edge_reclass_export.recipes.{module}").RECIPE
    return recipe


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in map(_recipe, _MODULES)}
"""By name, in the order of ``export --help``."""
