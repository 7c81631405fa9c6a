"""``edge-reclass export ...``: mounted by the runtime's command line through its entry point group."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from edge_reclass_export.commands.assemble import assemble
from edge_reclass_export.commands.join import join
from edge_reclass_export.commands.plus import plus
from edge_reclass_export.commands.reference import reference
from edge_reclass_export.recipe import Recipe, command
from edge_reclass_export.recipes import RECIPES


def export_app(recipes: Mapping[str, Recipe] = RECIPES) -> typer.Typer:
    """The commands of ``edge-reclass export``: ``all``, each of ``recipes``, ``join``, ``plus``, ``reference``."""
    made = typer.Typer(
        name="export",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Turn checkpoints into ONNX encoders: waveform to embedding, the front end inside.",
    )
    made.command(name="all")(assemble)
    for name, recipe in recipes.items():
        made.command(name=name, help=recipe.help)(command(recipe))
    made.command()(join)
    made.command()(plus)
    made.command()(reference)
    return made


app = export_app()
