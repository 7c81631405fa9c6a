"""``edge-reclass evaluate``."""

from __future__ import annotations

import csv
import io
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_learn.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge_reclass_learn.evaluate.measuring import Answered

RECORD, PAGE = "record.json", "page.html"


def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of bundles; starter is the embedded one, where there is no such folder.", metavar="BUNDLE..."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder with a folder for each genre; or CSV with the columns path and genre, and perhaps group,"
            " artist, album, source; or a state file, of which the corrections are used.",
            metavar="DATA",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=f"Folder for {RECORD} and {PAGE}.", metavar="FOLDER")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Policy of the bundles. [default: each one's own]")] = None,
    cross_validate: Annotated[
        str,
        typer.Option(
            help="Judge new heads, fitted in folds, in place of the bundle's. auto: where it was fitted on any of the"
            " tracks.",
            metavar="auto|always|never",
        ),
    ] = "auto",
    predictions: Annotated[
        Path | None, typer.Option(help="List what each bundle says of each track.", metavar="FILE.csv")
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            min=0,
            help="Tracks that the real cascade classifies, to time it and to compare precisions and devices; 0: none.",
        ),
    ] = 50,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Compare it with the CPU on the sample; may be repeated.", metavar="cuda|tensorrt"),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="What other approaches find on the same folds; takes minutes.")
    ] = False,
    tags: Annotated[
        Path | None,
        typer.Option(help="For the baselines: what edge-reclass export musicnn --tags wrote.", metavar="FILE.onnx"),
    ] = None,
    encoders: Annotated[
        bool, typer.Option("--encoders", help="What a linear probe on each encoder finds on the same folds.")
    ] = False,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and intervals.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="What was heard is kept here. [default: FOLDER/cache]", metavar="FILE")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for the encoders. [default: all usable CPUs]")
    ] = None,
) -> None:
    """Measure how good bundles are on labelled tracks.

    Every figure has its 95 % interval, and stands in a JSON record too. Where a bundle was fitted on any of the tracks,
    new heads are fitted in folds and judged in place of its own. Two bundles are compared on the same tracks. An
    evaluation that was interrupted goes on where it was. Needs the extra evaluate.

    Exit codes: 0 good, 2 the data or a path cannot be used, 4 a bundle is invalid, 5 ONNX Runtime is missing.
    """
    from edge_reclass.bundle import starter_path
    from edge_reclass_export.recipe import check_there, need, one_of

    need("sklearn", "onnx", "scipy", "matplotlib", extra="evaluate")
    from edge_reclass_learn.evaluate.evaluating import evaluate as evaluated
    from edge_reclass_learn.evaluate.hearing import CROSS_VALIDATE, Options
    from edge_reclass_learn.evaluate.page import write_page
    from edge_reclass_learn.evaluate.record import save
    from edge_reclass_learn.evaluate.screen import screen

    mode = one_of("--cross-validate", cross_validate, CROSS_VALIDATE)
    devices = [one_of("--device", one, ("cuda", "tensorrt")) for one in dict.fromkeys(device or ())]
    check_there(data)
    if cache is None:
        if output is None:
            raise UsageError(
                "name a folder for the record (-o FOLDER), or a file that keeps what was heard (--cache FILE)"
            )
        cache = output / "cache"
    if tags is not None and not baselines:
        raise UsageError(f"--tags {tags}: only with --baselines")
    if devices and not sample:
        raise UsageError("--device: compares devices on the sample, and --sample 0 is none")
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"{output}: expected a folder or nothing, got something else; name another one with -o")
    progress = Progress()
    options = Options(
        cache=cache,
        policy=policy,
        cross_validate=mode,
        folds=folds,
        seed=seed,
        threads=threads,
        sample=sample,
        devices=devices,
        baselines=baselines,
        tags=tags,
        encoders=encoders,
    )
    roots = [starter_path() if str(path) == "starter" and not path.exists() else path for path in bundles]
    with _folder(output):
        for path in ([] if output is None else [output / RECORD, output / PAGE]) + [p for p in [predictions] if p]:
            _writable(path)
        found = evaluated(roots, data, options, progress)
        progress.done()
        for line in screen(found.record):
            print(line)
        if output is not None:
            save(found.record, output / RECORD)
            write_page(found.record, output / PAGE)
        if predictions is not None:
            _list(predictions, found.answered)
    if output is not None:
        print(f"\ndone in {progress.seconds:.0f} s: {output / PAGE} and {output / RECORD}")


@contextmanager
def _folder(output: Path | None) -> Iterator[None]:
    """``output`` is there: better known before all is heard than after. It goes again where nothing came into it."""
    missing = [] if output is None else [path for path in (output, *output.parents) if not path.exists()]
    try:
        if output is not None:
            try:
                output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"{output}: cannot be made ({error.strerror or error}); name another one with -o"
                ) from error
        yield
    finally:
        with suppress(OSError):  # not made, or no longer empty
            for path in missing:
                path.rmdir()


def _writable(path: Path) -> None:
    """Raise ``UsageError`` where ``path`` cannot be written."""
    target = path.resolve()
    if target.is_dir():
        raise UsageError(f"{path}: expected a file, got a folder; name a file in it")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); name another file") from error


def _list(path: Path, answered: Sequence[Answered]) -> None:
    from edge_reclass.host import write_whole

    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["bundle", "path", "genre", "said", "confidence", "unsure", "stage"])
        for one in answered:
            names, verdicts = one.bundle.manifest.genres, one.verdicts
            for row, example in sorted(enumerate(one.examples), key=lambda pair: pair[1].name):
                writer.writerow(
                    [
                        one.name,
                        example.name,
                        example.genre,
                        names[int(verdicts.given[row])],
                        f"{verdicts.given_confidence[row]:.4f}",
                        "yes" if verdicts.unsure[row] else "no",
                        one.policy.steps[int(verdicts.step[row])].after,
                    ]
                )
        write_whole(path, text.getvalue().encode(errors="surrogateescape"))
