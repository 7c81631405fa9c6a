"""Names of clusters to labelled tracks, and what is kept of a clustering."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("scipy", reason="clustering needs the extra [fit]")
pytest.importorskip("onnx", reason="clustering needs the extra [fit]")

from edge_reclass.errors import UsageError
from edge_reclass_learn.cluster.naming import name, read_names
from edge_reclass_learn.cluster.record import RECORD, TRACKS, Group, Record, Row, check_place, read, table
from edge_reclass_learn.data.labelled import from_csv


def row(path: str, cluster: int = 1, *, far: bool = False, following: int = 2, between: bool = False) -> Row:
    return Row(path, cluster, 1.5, far, following, between, "Rock", "group 0")


def record(content: bytes, clusters: int = 3) -> Record:
    groups = [
        Group(number=i + 1, tracks=9, genres={}, near=[], apart=[], warnings=[], far=0, between=0)
        for i in range(clusters)
    ]
    return Record(
        version="1",
        data="/music",
        data_sha256="0",
        bundle="test",
        bundle_digest="0",
        stages=["low"],
        dimensions=2,
        explained=1.0,
        method="kmeans",
        seed=0,
        smallest=None,
        tracks=9 * clusters,
        loose=0,
        left_out={},
        chosen="given",
        curve=[],
        follows={},
        clusters=groups,
        tracks_sha256=hashlib.sha256(content).hexdigest(),
    )


def kept(folder: Path, rows: list[Row]) -> Record:
    content = table(rows)
    (folder / TRACKS).write_bytes(content)
    found = record(content)
    (folder / RECORD).write_bytes(msgspec.json.encode(found))
    return found


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    rows = [row('/a,\n"b".mp3'), row("/\udcff.mp3", 2, between=True), row("/c.mp3", 0, far=True, following=0)]
    found = kept(tmp_path, rows)
    assert read(tmp_path) == (found, rows)


def test_a_table_that_was_changed_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, [row("/a.mp3")])
    (tmp_path / TRACKS).write_bytes((tmp_path / TRACKS).read_bytes() + b"x")
    with pytest.raises(UsageError, match="was changed"):
        read(tmp_path)
    (tmp_path / RECORD).write_text('{"kind": "other"}')
    with pytest.raises(UsageError, match=r"record\.json: expected a record of edge-reclass cluster"):
        read(tmp_path)
    (tmp_path / RECORD).unlink()
    with pytest.raises(UsageError, match="edge-reclass cluster DATA"):
        read(tmp_path)


def test_tracks_of_named_clusters_are_labelled_and_the_others_counted() -> None:
    rows = [
        row("/1.mp3"),
        row("/2.mp3", 2),
        row("/3.mp3", 3),
        row("/4.mp3", 0, far=True),
        row("/5.mp3", far=True),
        row("/6.mp3", between=True, following=2),  # of the same name
        row("/7.mp3", between=True, following=3),
        row("/\udcff.mp3"),
        row("/8.mp3 "),
    ]
    found = name(rows, {1: "Folk", 2: "Folk"})
    assert [path for path, _, _ in found.rows] == ["/1.mp3", "/2.mp3", "/6.mp3"]
    assert found.genres == {"Folk": 3}
    assert found.left_out == {
        "in a cluster without a name": 1,
        "in no cluster": 1,
        "far from every centre": 1,
        "between two clusters": 1,
        "with a name that a CSV cannot hold": 2,
    }


def test_a_table_for_fit(tmp_path: Path) -> None:
    found = name([row('/a, "b"\n.mp3'), row("/c.mp3", 2)], {1: "Folk, old", 2: "Jazz"})
    (tmp_path / "labelled.csv").write_bytes(found.csv())
    first, second = from_csv(tmp_path / "labelled.csv").tracks
    assert (first.path, first.genre, first.belongs) == (Path('/a, "b"\n.mp3'), "Folk, old", (("group", "group 0"),))
    assert second.genre == "Jazz"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cluster;genre\n1;Folk\n", "expected the columns cluster and genre"),
        ("", "expected the columns cluster and genre"),
        ("cluster,genre\n4,Folk\n", "row 2: expected a cluster from 1 to 3, got '4'"),
        ("cluster,genre\nx,Folk\n", "row 2: expected a cluster from 1 to 3, got 'x'"),
        ("cluster,genre\n1,Folk\n1,Jazz\n", "row 3: cluster 1 stands there as 'Folk' and as 'Jazz'"),
        (f"cluster,genre\n{'1' * 5000},Folk\n", "row 2: expected a cluster from 1 to 3, got '111"),
        ("cluster,genre\n1,Fo\u202elk\n", "expected no the invisible format character U+202E"),
        (f"cluster,genre\n1,{'x' * 5000}\n", "expected no more than"),
        ("cluster,genre\n1,\n2\n", "no cluster has a name"),
        ("cluster,genre,clustering\n1,Folk,other\n", "got those of other"),
        (b"\xff\xfe\x00", "cannot be read as a CSV"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = tmp_path / "names.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as refused:
        read_names(path, record(b""))
    assert expected in str(refused.value) and str(path) in str(refused.value)


def test_names_are_read_with_or_without_the_clustering(tmp_path: Path) -> None:
    path, found = tmp_path / "names.csv", record(b"")
    path.write_text(f"\ufeffcluster,genre,clustering\n1, Bossa  Nova ,{found.name}\n2,,\n3,Jazz,\n", encoding="utf-8")
    assert read_names(path, found) == {1: "Bossa Nova", 3: "Jazz"}


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    check_place(tmp_path / "new")
    check_place(tmp_path)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="got something else"):
        check_place(tmp_path)
    kept(tmp_path, [row("/a.mp3")])
    check_place(tmp_path)  # made before; the letter is left alone
    with pytest.raises(UsageError, match="got something else"):
        check_place(tmp_path / "letter.txt")
