"""``edge-reclass cluster``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError

if TYPE_CHECKING:
    from edge_reclass_learn.cluster.finding import Outcome


class Method(str, Enum):
    """How clusters are found."""

    KMEANS = "kmeans"
    HDBSCAN = "hdbscan"


def cluster(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the page, the table and the record.", metavar="FOLDER")
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of music; or CSV with the column path, and perhaps group, artist, album, source; or a state"
            " file with kept embeddings. Not needed with --names.",
            metavar="DATA",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle whose encoders are used. [default: the starter]", metavar="BUNDLE")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Stage whose embeddings are used; may be given again. [default: the bundle's last]", metavar="NAME"
        ),
    ] = None,
    clusters: Annotated[
        str, typer.Option(help="Number of clusters of kmeans; auto: as many as are stable.", metavar="N|auto")
    ] = "auto",
    method: Annotated[
        Method,
        typer.Option(help="hdbscan takes dense groups only, and leaves the rest.", metavar="kmeans|hdbscan"),
    ] = Method.KMEANS,
    smallest: Annotated[
        int | None,
        typer.Option(min=2, help="Least tracks of a cluster of hdbscan. [default: a hundredth of all, at least 5]"),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            help="Name the clusters that are in FOLDER: columns cluster and genre; writes FOLDER/labelled.csv.",
            metavar="names.csv",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="The same seed gives the same clusters.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="What was heard is kept here. [default: FOLDER.cache]", metavar="FILE")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for the encoders. [default: all usable CPUs]")
    ] = None,
) -> None:
    """Sort unlabelled music into clusters that sound alike, to name them.

    FOLDER/clusters.html has tracks of each cluster to listen to, and fields for their names. With --names, the tracks
    of named clusters become labelled.csv, which edge-reclass fit takes. Needs the extra fit.

    Exit codes: 0 good, 2 the data or a path cannot be used, 4 the bundle is invalid, 5 ONNX Runtime is missing.
    """
    from edge_reclass_export.recipe import check_there, need

    need("sklearn", "onnx", "scipy", extra="fit")
    if names is not None:
        if (clusters, method, stage or None, smallest) != ("auto", Method.KMEANS, None, None):
            raise UsageError("--names names the clusters that are in FOLDER: leave the options of clustering away")
        _name(data, output, names)
        return
    if data is None:
        raise UsageError("expected DATA: a folder of music, a CSV with the column path, or a state file")
    check_there(data)
    from edge_reclass_learn.cluster.finding import Options, cluster_music
    from edge_reclass_learn.hearing.cache import cache_of
    from edge_reclass_learn.progress import Progress

    if smallest is not None and method is not Method.HDBSCAN:
        raise UsageError("--smallest goes with --method hdbscan")
    place = cache_of(output) if cache is None else cache
    options = Options(place, bundle, stage or (), method.value, _number(clusters, method), smallest, seed, threads)
    progress = Progress()
    found = cluster_music(data, output, options, progress)
    progress.done()
    for line in _screen(found):
        print(line)
    print(
        f"done in {progress.seconds:.0f} s; listen and name: {output / 'clusters.html'}; then: edge-reclass cluster -o"
        f" {output} --names names.csv"
    )


def _number(clusters: str, method: Method) -> int | None:
    from edge_reclass_learn.cluster.finding import MOST

    if clusters == "auto":
        return None
    if method is Method.HDBSCAN:
        raise UsageError("--clusters: hdbscan finds their number itself; --smallest says how small they may be")
    short = len(clusters) < 40  # Python refuses to read very long numbers
    if not (short and clusters.isascii() and clusters.isdigit() and 2 <= int(clusters) <= MOST):
        raise UsageError(f"--clusters: expected auto or a number from 2 to {MOST}, got {clusters[:40]!r}")
    return int(clusters)


def _screen(found: Outcome) -> Iterator[str]:
    """What a user is told at the end."""
    from edge_reclass.run import printable
    from edge_reclass_export.engine.report import table

    record = found.record
    rows = []
    for one in record.clusters:
        heard = ", ".join(f"{genre} {n / one.tracks:.0%}" for genre, n in list(one.genres.items())[:2])
        rows.append([str(one.number), str(one.tracks), printable(heard), printable(", ".join(one.near[:2]))])
    yield table(("cluster", "tracks", f"called by {record.bundle}", "nearest genres"), rows)
    by = " and ".join(record.stages)
    if record.chosen == "stability":
        step = next(one for one in record.curve if one.clusters == record.asked)
        yield (
            f"{len(record.clusters)} clusters of {record.tracks} tracks, by what {by} hears: two parts of the music"
            f" agree on them to {step.agreement:.2f}, shuffled points to {step.by_chance:.2f} (silhouette"
            f" {step.silhouette:.2f})"
        )
    else:
        yield f"{len(record.clusters)} clusters of {record.tracks} tracks, by what {by} hears"
    if record.loose:
        yield f"in no cluster: {record.loose}"
    for why, count in record.left_out.items():
        yield f"left out, {why}: {count}"
    if record.follows:
        yield "the clusters follow (0: not at all, 1: they are that): " + ", ".join(
            f"{what} {share:.2f}" for what, share in record.follows.items()
        )
    for one in record.clusters:
        for warning in one.warnings:
            yield f"warning: cluster {one.number}: {warning}"
    yield from found.notes


def _name(data: Path | None, folder: Path, names: Path) -> None:
    from edge_reclass.host import write_whole
    from edge_reclass.run import printable
    from edge_reclass_learn.cluster.naming import LABELLED, name, read_names
    from edge_reclass_learn.cluster.record import read
    from edge_reclass_learn.pages.text import readable

    record, rows = read(folder)
    if data is not None and readable(str(data.resolve())) != record.data:
        raise UsageError(
            f"{folder}: expected the clusters of {data}, these are of {printable(record.data)}; cluster it without"
            " --names first"
        )
    found = name(rows, read_names(names, record))
    if not found.rows:
        why = ", ".join(f"{n} {reason}" for reason, n in found.left_out.items())
        raise UsageError(f"{names}: no track is left that could be labelled ({why})")
    write_whole(folder / LABELLED, found.csv())
    for genre, count in found.genres.most_common():
        print(f"{printable(genre)}: {count} tracks")
    for reason, count in found.left_out.items():
        print(f"left out, {reason}: {count}")
    print("warning: figures of fit will say how well these names are found again, not how right they are")
    if len(found.genres) < 2:
        print("warning: fit needs at least 2 genres")
    print(f"next: edge-reclass fit {folder / LABELLED} -o mine")
