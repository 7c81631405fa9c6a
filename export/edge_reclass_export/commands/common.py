"""What the export commands share: the two steps of an export, needs, small parsers, and what they print.

An export is planned first: everything that can be known without computing is read and checked. What is planned can
then be run, into the bundle or into a folder where ``export all`` assembles one.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from edge_reclass.errors import MissingExtraError
from edge_reclass_export.errors import CheckpointError

if TYPE_CHECKING:
    from edge_reclass_export.bundle_writer import BundleChange, StageHead
    from edge_reclass_export.head_files import HeadOptions

__all__ = [
    "FMA_GENRES",
    "Activation",
    "HeadLayers",
    "Plan",
    "Planned",
    "Progress",
    "exporting",
    "need",
    "plan_head",
    "print_change",
    "refuse_mix",
    "say",
    "split_genres",
]

Activation: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What stands between the head's layers, where its file cannot tell: relu, gelu, tanh, ..."),
]
HeadLayers: TypeAlias = Annotated[
    str | None,
    typer.Option(help="The head's layers and activations in order, where its file cannot tell: fc1,bn1,relu,fc2."),
]


@dataclass(frozen=True)
class Planned:
    """An export that was checked. ``run`` puts the stage into a folder, and says what it does.

    ``genres`` are the names of the classes, as far as they are known; ``has_head`` whether the stage gets one.
    """

    stage: str
    genres: Sequence[str]
    has_head: bool
    run: Callable[[Path, Progress], BundleChange]


Plan: TypeAlias = Callable[..., Planned]


class Progress:
    """Says what was done, and how many seconds after the beginning, on standard error."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def __call__(self, text: str) -> None:
        say(f"{self.seconds:6.1f} s  {text}")


def exporting(plan: Plan) -> Callable[..., None]:
    """The command that plans an export into ``bundle``, one of the arguments of ``plan``, and runs it."""

    @functools.wraps(plan)
    def command(**arguments: Any) -> None:
        progress = Progress()
        planned, bundle = plan(**arguments), arguments["bundle"]
        progress("read and checked")
        change = planned.run(bundle, progress)
        print_change(change)
        after = f"; next: edge-reclass verify {bundle}" if change.complete else ""
        say(f"done in {progress.seconds:.0f} s{after}")

    return command


FMA_GENRES = (
    "Blues",
    "Classical",
    "Country",
    "Easy Listening",
    "Electronic",
    "Experimental",
    "Folk",
    "Hip-Hop",
    "Instrumental",
    "International",
    "Jazz",
    "Old-Time/Historic",
    "Pop",
    "Rock",
    "Soul-RnB",
    "Spoken",
)
"""The 16 top-level genres of the FMA dataset, for bundles that only measure."""


def need(*packages: str, extra: str = "export") -> None:
    """Raises ``MissingExtraError`` where one of the ``packages`` is not installed; imports none of them."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingExtraError(f"export needs {', '.join(missing)}", extra)


def plan_head(
    bundle: Path,
    head: Path | None,
    dim: int,
    genres: Sequence[str],
    options: HeadOptions,
    *,
    untrained: bool = False,
) -> StageHead | None:
    """The head in a file, checked for ``dim`` values; else an untrained one where that is wanted, else None.

    Raises what ``bundle_writer.stage_head`` raises.
    """
    from edge_reclass.bundle import MANIFEST, load
    from edge_reclass_export.bundle_writer import StageHead, stage_head

    if head is not None:
        found = stage_head(bundle, head, dim, genres, options)
        for line in found.said:
            say(line)
        return found
    if not untrained:
        return None
    from edge_reclass_export.mert_export import random_head

    known = load(bundle).manifest.genres if (bundle / MANIFEST).exists() else genres
    names = list(known or FMA_GENRES)
    say("the head is untrained too")
    return StageHead(random_head(dim, len(names)), {"random_init": True}, names)


def refuse_mix(head: Path | None, found: StageHead | None) -> None:
    """Raises ``CheckpointError`` where weights of hidden states lie beside a head whose encoder has no mix of them."""
    if found is not None and found.mix:
        raise CheckpointError(
            f"{head}: it has weights of hidden states ({', '.join(found.mix)}), which only MERT takes"
        )


def say(text: str) -> None:
    """One line for people, to standard error."""
    print(text, file=sys.stderr)


def split_genres(text: str | Sequence[str]) -> list[str]:
    """``A,B,...`` as a list of names; ``export all`` gives a list, in whose names a comma may stand."""
    if not isinstance(text, str):
        return list(text)
    return [name.strip() for name in text.split(",") if name.strip()]


def print_change(change: BundleChange) -> None:
    """Notes to standard error, the stage as YAML to standard output."""
    for note in change.notes:
        say(note)
    print(change.fragment, end="")
