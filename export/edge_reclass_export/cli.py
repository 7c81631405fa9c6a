"""``edge-reclass export ...``: mounted by the runtime's command line through its entry point group."""

from __future__ import annotations

import typer

from edge_reclass_export.commands import assemble, fma_mlp, mert, musicnn, openjmla, reference, starter

__all__ = ["app"]

app = typer.Typer(
    name="export",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Turn checkpoints into ONNX encoders: waveform to embedding, the front end inside.",
)


@app.callback()
def _root() -> None:
    """Keeps the commands' names, however many there are."""


for command in (assemble, fma_mlp, mert, openjmla, musicnn, starter, reference):
    command.register(app)
