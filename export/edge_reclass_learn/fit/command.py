"""``edge-reclass fit``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_reclass_learn.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_reclass_learn.fit.doubts import WrongLabel

Head = Literal["logistic", "mlp", "trees"]


def fit(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with a folder for each genre; or CSV with the columns path and genre, and perhaps group,"
            " artist, album, source; or a state file, of which the corrections are used; or vectors of one stage: FMA's"
            " features.csv with tracks.csv, an .npz, an .npy.",
            metavar="DATA",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.", metavar="NEW")],
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle whose encoders are used. [default: the starter]", metavar="BASE")
    ] = None,
    keep_genres: Annotated[
        bool, typer.Option("--keep-genres", help="The genres of the base too, from what it remembers.")
    ] = False,
    min_gain: Annotated[
        float, typer.Option(help="Say so where the new bundle does not find so many percentage points more.")
    ] = 0.0,
    doubts: Annotated[
        Path | None,
        typer.Option(help="List all tracks, those whose label looks most wrong first.", metavar="FILE.csv"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds that the figures come from.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="How the tracks are dealt into folds.")] = 0,
    head: Annotated[
        Head,
        typer.Option(
            help="Kind of the heads. trees: only where they find more out of fold than logistic ones.",
            metavar="logistic|mlp|trees",
        ),
    ] = "logistic",
    stage: Annotated[
        str | None, typer.Option(help="Stage that made the vectors, where DATA does not say it.", metavar="NAME")
    ] = None,
    augment: Annotated[
        int,
        typer.Option(min=0, max=20, help="Changed copies of each track (level, rate, length) to learn from as well."),
    ] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="What was heard is kept here. [default: NEW.cache]", metavar="FILE")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for the encoders. [default: all usable CPUs]")
    ] = None,
) -> None:
    """Fit a bundle to your own genres.

    The encoders of a bundle stay; its heads, range tests, temperatures and thresholds are made anew, from music that
    you have labelled. The figures are out of fold: of artists, as far as they are known, that the heads have not
    heard. A fit that was interrupted goes on where it was. Needs the extra fit.

    Exit codes: 0 good, 2 the data or a path cannot be used, 4 the base bundle is invalid, 5 ONNX Runtime is missing.
    """
    from edge_reclass.bundle import load
    from edge_reclass_export.recipe import check_there, need

    need("sklearn", "onnx", "scipy", extra="fit")
    from edge_reclass_learn.fit.card import screen
    from edge_reclass_learn.fit.fitting import Options, fit_bundle
    from edge_reclass_learn.hearing.cache import cache_of

    check_there(data)
    place = cache_of(output) if cache is None else cache
    progress = Progress()
    options = Options(place, bundle, keep_genres, folds, seed, threads, augment, head, stage)
    found = fit_bundle(data, output, options, progress)
    progress.done()
    for line in screen(found, min_gain):
        print(line)
    if doubts is not None:
        _list(doubts, found.doubts)
    size = sum(entry.bytes for entry in load(output).manifest.files.values()) / 1e6
    print(f"done in {progress.seconds:.0f} s: {output}, {size:.1f} MB; next: edge-reclass verify {output}")


def _list(path: Path, doubts: Sequence[WrongLabel]) -> None:
    from edge_reclass.host import write_whole

    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["path", "genre", "sounds_like", "confidence", "loss"])
        for one in doubts:
            row = [one.example.name, one.example.genre, one.said, f"{one.confidence:.4f}", f"{one.loss:.4f}"]
            writer.writerow(row)
        write_whole(path, text.getvalue().encode(errors="surrogateescape"))
