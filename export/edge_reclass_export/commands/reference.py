"""``edge-reclass export reference``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass_export.engine.report import say
from edge_reclass_export.recipe import need


def reference(bundle: Annotated[Path, typer.Argument(help="Bundle directory.", metavar="BUNDLE")]) -> None:
    """Write anew what the bundle's stages answer to synthesised audio, with which verify compares a device.

    Every export does so at its end; needed after bundle.yaml was changed by hand. Exit codes: 0 good, 2 the folder
    cannot be written, 4 the bundle is invalid or a stage cannot answer.
    """
    need("onnx", "onnxruntime")
    from edge_reclass_export.cascade_writer import write_cascade_reference
    from edge_reclass_export.engine.cascade_reference import FILE

    write_cascade_reference(bundle)
    say(f"{bundle / FILE}: written")
