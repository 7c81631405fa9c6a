"""What a recipe is, and the command that every recipe gets: a checkpoint becomes a stage of a bundle.

An export is planned first: everything that can be known without computing is read and checked. What is planned can
then be run, into the bundle or into a folder where ``export all`` assembles one.
"""

from __future__ import annotations

import functools
import inspect
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer
from typer.models import ArgumentInfo

from edge_reclass.errors import MissingExtraError, UsageError
from edge_reclass_export.engine.report import say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_reclass.bundle import ExcerptEntry
    from edge_reclass_export.bundle_writer import BundleChange, StageHead
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.head_files import HeadOptions
    from edge_reclass_export.own_genres import OwnGenres

Activation: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What stands between the head's layers, where its file does not say: relu, gelu, tanh, ..."),
]
HeadLayers: TypeAlias = Annotated[
    str | None,
    typer.Option(help="The head's layers and activations in order, where its file does not say: fc1,bn1,relu,fc2."),
]

_Bundle: TypeAlias = Annotated[
    Path | None, typer.Option(help="Put encoder, head and reference vectors into this bundle directory.")
]
_Head: TypeAlias = Annotated[
    Path | None, typer.Option(help="Head of the stage: .onnx, .npz, .skops, or a torch or safetensors checkpoint.")
]
_Genres: TypeAlias = Annotated[str, typer.Option(help="The bundle's genres, A,B,...; for a new bundle.")]
GenreMapFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="YAML file for a head whose genres are not the bundle's: genres, and map from each to the bundle's."
    ),
]
_Excerpt: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="What the stage looks at: full, SECONDS (from the middle) or START:SECONDS."
        " [default: one window from the middle]"
    ),
]
_ReferenceAudio: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(help="Add a window from the middle of this file to the reference vectors; may be repeated."),
]
_Output: TypeAlias = Annotated[Path | None, typer.Option("--output", "-o", help="Write the ONNX file only.")]

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


class Progress:
    """Prints what was done, and how many seconds after the beginning, to standard error."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def __call__(self, text: str) -> None:
        """Print ``text``."""
        say(f"{self.seconds:6.1f} s  {text}")


@dataclass(frozen=True)
class Planned:
    """An export that was checked. ``run`` puts the stage into a folder, and says what it does.

    ``genres`` are the names of the classes, as far as they are known; ``has_head`` whether the stage gets one.
    """

    stage: str
    genres: Sequence[str]
    has_head: bool
    run: Callable[[Path, Progress], BundleChange]


@dataclass(frozen=True)
class Recipe:
    """How one kind of checkpoint becomes a stage of a bundle: ``edge-reclass export NAME``.

    Attributes:
        name: of the command, and of the recipe in the file of ``export all``.
        plan: Reads and checks; its parameters, with Typer's annotations, are the options. ``bundle`` is one of them.
        help: what ``--help`` says.
    """

    name: str
    plan: Callable[..., Planned]
    help: str


Export: TypeAlias = "Callable[[Progress], ExportedEncoder]"


@dataclass(frozen=True)
class EncoderPlan:
    """An encoder whose options and checkpoint were read and checked.

    Attributes:
        rate: Hz of the graph's input.
        window_samples: length of the graph's input.
        dim: width of the embedding.
        prepare: The last step before the export, and the export itself: gets the head's file, if any, and the weights
            of a learned mix of hidden states that lie in it. Loads the checkpoint in the export only, so that ``export
            all`` never has several of them in memory.
        stage: the stage's name, where the recipe has none of its own.
        untrained: the weights are random, and a head is made where none is given.
        excerpt: what a new stage looks at; None is the bundle's excerpt.
    """

    rate: int
    window_samples: int
    dim: int
    prepare: Callable[[Path | None, Mapping[str, NDArray[np.float64]]], Export]
    stage: str = ""
    untrained: bool = False
    excerpt: ExcerptEntry | None = None


def encoder_recipe(
    name: str,
    read: Callable[..., EncoderPlan],
    *,
    help: str,
    stage: str | None,
    needs: Sequence[str] = ("onnx", "onnxscript", "torch", "safetensors"),
    layer_mix: bool = False,
    excerpt: bool = False,
    reference_audio: bool = True,
    output: bool = False,
) -> Recipe:
    """The recipe of an encoder: its own options are the parameters of ``read``, the others are every recipe's.

    Args:
        name: of the command.
        read: From options to a checked encoder. Imports what ``needs`` names inside of it, for ``--help`` has neither.
        help: what ``--help`` says.
        stage: the stage's name by default; None where the plan names it.
        needs: packages that have to be installed.
        layer_mix: the encoder takes the weights of a mix of hidden states that lie beside the head.
        excerpt: whether there is ``--excerpt``.
        reference_audio: whether there is ``--reference-audio``.
        output: whether there is ``--output`` for the graph alone, instead of ``--bundle``.
    """
    own = {key: (one.annotation, one.default) for key, one in inspect.signature(read, eval_str=True).parameters.items()}
    first = {key: kind for key, kind in own.items() if isinstance(kind[0].__metadata__[0], ArgumentInfo)}
    stage_help = "Name of the bundle's stage." + ("" if stage else f" [default: {name}-VARIANT]")
    kinds: dict[str, tuple[Any, Any]] = {
        **first,
        "bundle": (_Bundle, None),
        "head": (_Head, None),
        **{key: kind for key, kind in own.items() if key not in first},
        **({"output": (_Output, None)} if output else {}),
        "stage": (Annotated[str if stage else str | None, typer.Option(help=stage_help)], stage),
        "genres": (_Genres, ""),
        "map": (GenreMapFile, None),
        **({"excerpt": (_Excerpt, None)} if excerpt else {}),
        **({"reference_audio": (_ReferenceAudio, None)} if reference_audio else {}),
        "activation": (Activation, None),
        "head_layers": (HeadLayers, None),
    }

    def plan(**given: Any) -> Planned:
        options = {key: default for key, (_, default) in kinds.items() if key not in own} | given
        options = {"excerpt": None, "reference_audio": None, "output": None, **options}
        _require_place(options, output)
        need(*needs)
        found = read(**{key: value for key, value in given.items() if key in own})
        if options["output"] is not None:
            return _to_file(name, found, options["output"])
        return _into_bundle(found, options, layer_mix)

    _declare(plan, kinds)
    return Recipe(name, plan, help)


def _declare(plan: Callable[..., Planned], kinds: Mapping[str, tuple[Any, Any]]) -> None:
    """Gives ``plan`` the parameters from which Typer and ``export all`` read the options."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(key, keyword, annotation=a, default=d) for key, (a, d) in kinds.items()]
    plan.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    plan.__annotations__ = {key: annotation for key, (annotation, _) in kinds.items()}


def _require_place(options: Mapping[str, Any], output: bool) -> None:
    if (options["output"] is None) == (options["bundle"] is None):
        raise UsageError(f"say where to: {'either --output FILE or ' if output else ''}--bundle DIR")
    if options["bundle"] is None and any(options[key] for key in ("head", "stage", "genres", "map")):
        raise UsageError("--head, --stage, --genres and --map need --bundle DIR")


def _to_file(name: str, found: EncoderPlan, output: Path) -> Planned:
    """The plan of an ONNX file without a bundle."""
    import msgspec
    import yaml

    from edge_reclass.bundle import content_entry
    from edge_reclass_export.bundle_writer import BundleChange
    from edge_reclass_export.onnx_writer import write_bytes

    export = found.prepare(None, {})

    def run(_: Path, progress: Progress) -> BundleChange:
        encoder = export(progress)
        write_bytes(encoder.model, output)
        described = {
            "file": str(output),
            **msgspec.to_builtins(content_entry(encoder.model)),
            "rate": encoder.rate,
            "window_samples": encoder.window_samples,
            "hop_samples": encoder.hop_samples,
            "dim": encoder.dim,
            "provenance": dict(encoder.provenance),
        }
        return BundleChange(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=110), False, ())

    return Planned(name, (), False, run)


def _into_bundle(found: EncoderPlan, options: Mapping[str, Any], layer_mix: bool) -> Planned:
    """The plan of a stage. Whatever does not fit is to be known before the minutes that the export takes."""
    from edge_reclass_export.bundle_writer import check_bundle, put_encoder
    from edge_reclass_export.errors import CheckpointError
    from edge_reclass_export.excerpt_option import choose_excerpt
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.own_audio import read_windows, with_own_audio
    from edge_reclass_export.own_genres import read_own_genres

    bundle, file, stage = options["bundle"], options["head"], options["stage"] or found.stage
    names, audio = split_genres(options["genres"]), options["reference_audio"] or []
    if options["map"] is not None and file is None:
        raise UsageError("--map says what the genres of a head are: give the head with --head")
    own = None if options["map"] is None else read_own_genres(options["map"])
    head_options = parse_head_options(options["activation"], options["head_layers"])
    check_bundle(bundle, stage, genres=names, dim=found.dim, new_head=file is not None or found.untrained)
    excerpt = choose_excerpt(options["excerpt"], found.excerpt, bundle, stage)
    head = _head(bundle, file, found, names, head_options, own)
    mix = head.mix if head is not None else {}
    if mix and not layer_mix:
        raise CheckpointError(f"{file}: it has weights of hidden states ({', '.join(mix)}), which only MERT takes")
    export = found.prepare(file, mix)
    windows = read_windows(audio, found.rate, found.window_samples)
    classes = head.genres if head is not None else names

    def run(root: Path, progress: Progress) -> BundleChange:
        encoder = with_own_audio(export(progress), audio, windows)
        put = functools.partial(put_encoder, root, encoder, stage=stage, genres=classes, excerpt=excerpt)
        return put() if head is None else put(head=head.content, head_source=head.source, own=head.own)

    return Planned(stage, classes, head is not None, run)


def _head(
    bundle: Path,
    file: Path | None,
    found: EncoderPlan,
    genres: Sequence[str],
    options: HeadOptions,
    own: OwnGenres | None,
) -> StageHead | None:
    """The head in ``file``, checked for the encoder; else an untrained one where the encoder is, else None."""
    from edge_reclass.bundle import MANIFEST, load
    from edge_reclass_export.bundle_writer import StageHead, stage_head
    from edge_reclass_export.heads import random_head

    if file is not None:
        head = stage_head(bundle, file, found.dim, genres, options, own)
        for line in head.said:
            say(line)
        return head
    if not found.untrained:
        return None
    known = load(bundle).manifest.genres if (bundle / MANIFEST).exists() else genres
    names = list(known or FMA_GENRES)
    say("the head is untrained too")
    return StageHead(random_head(found.dim, len(names)), {"random_init": True}, names)


def command(recipe: Recipe) -> Callable[..., None]:
    """The command that plans an export of ``recipe`` and runs it: the stage to standard output, notes to error."""

    @functools.wraps(recipe.plan)
    def run(**arguments: Any) -> None:
        progress = Progress()
        planned, bundle = recipe.plan(**arguments), arguments["bundle"]
        progress("read and checked")
        change = planned.run(bundle, progress)
        for note in change.notes:
            say(note)
        print(change.fragment, end="")
        after = f"; next: edge-reclass verify {bundle}" if change.complete else ""
        say(f"done in {progress.seconds:.0f} s{after}")

    return run


def need(*packages: str, extra: str = "export") -> None:
    """Raises ``MissingExtraError`` where one of the ``packages`` is not installed; imports none of them."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingExtraError(f"export needs {', '.join(missing)}", extra)


Choice = TypeVar("Choice", bound=str)


def one_of(what: str, text: str, choices: Sequence[Choice]) -> Choice:
    """The one of ``choices`` that ``text`` names. Raises ``UsageError`` where none is: no ``what`` of that name."""
    for choice in choices:
        if text == choice:
            return choice
    raise UsageError(f"no {what} {text!r}; choose one of {', '.join(choices)}")


def check_there(path: Path) -> None:
    """Raise ``UsageError`` where ``path`` is not there, cannot be reached, or is neither folder nor regular file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):  # a pipe may never bring anything
        raise UsageError(f"{path}: expected a folder or a file, got a pipe, a socket or a device")


def window_length(seconds: float, rate: int, most: float, *, least: float = 0.0) -> int:
    """``--window-seconds`` in samples. Raises ``UsageError`` outside of ``least`` to ``most`` seconds."""
    if not isfinite(seconds) or not max(least, 0.5 / rate) <= seconds <= most:
        limits = f"{least:g} to {most:g}" if least else f"up to {most:g}"
        raise UsageError(f"--window-seconds: expected {limits}, got {seconds:g}")
    return round(seconds * rate)


def split_genres(text: str | Sequence[str]) -> list[str]:
    """``A,B,...`` as a list of names; ``export all`` gives a list, in whose names a comma may stand."""
    if not isinstance(text, str):
        return list(text)
    return [name.strip() for name in text.split(",") if name.strip()]
