"""Heads over 16, 10 and 13 genres in one bundle: `--map`, `export join`, and how they vote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import bundles
import synth

pytest.importorskip("onnx", reason="exports write ONNX")

from edge_reclass import Cascade
from edge_reclass.bundle import load, starter_path
from edge_reclass.errors import BundleError, UsageError
from edge_reclass_export.bundle_writer import put_encoder, stage_head
from edge_reclass_export.cli import app
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.joining import join_bundles
from edge_reclass_export.own_genres import OwnGenres, read_own_genres
from edge_reclass_export.recipe import FMA_GENRES
from export.test_bundle_writer import contents, small_encoder

GTZAN = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
THIRTEEN = ("Blues", "Classical", "Country", "Disco", "Electronic", "Folk", "Hip-Hop", "Jazz", "Metal", "Pop")
THIRTEEN += ("Reggae", "Rock", "Spoken")
FMA_MAP: dict[str, Any] = {
    **{name: name for name in FMA_GENRES if name in THIRTEEN},
    "Easy Listening": "Pop",
    "Experimental": None,
    "Instrumental": None,
    "International": {"Reggae": 0.5, "Folk": 0.5},
    "Old-Time/Historic": {"Jazz": 0.5, "Blues": 0.5},
    "Soul-RnB": None,
}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_embedded_starter_is_joined_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    genres = list(load(starter_path()).manifest.genres)
    run("join", tmp_path / "new", "starter", "--genres", ",".join(genres), "--stage", "fma")
    (stage,) = load(tmp_path / "new").manifest.stages
    assert stage.encoder == load(starter_path()).manifest.stage("fma").encoder
    one_stage(tmp_path / "starter", "tags", tuple(genres), 1)
    run("join", tmp_path / "new", "starter")
    assert [one.name for one in load(tmp_path / "new").manifest.stages] == ["fma", "tags"], "a folder of that name"


def one_stage(root: Path, name: str, genres: tuple[str, ...], seed: int) -> Path:
    """A bundle of one stage whose answers depend on what it hears."""
    bundles.make_bundle(root, [bundles.waveform_stage(name, window=8_000)], genres=list(genres))
    kernel = np.random.default_rng(seed).normal(0, 0.3, (8, len(genres))).astype(np.float32)
    node = bundles.helper.make_node("MatMul", ["features", "W"], ["logits"])
    shape = ("features", 8), ("logits", len(genres))
    bundles.write_graph(root / f"heads/{name}.onnx", *shape, [node], {"W": kernel})
    bundles.rehash(root)
    return root


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """Stages over 13, 10 and 16 genres in one bundle with 13."""
    thirteen = one_stage(tmp_path / "thirteen", "tags", THIRTEEN, 1)
    gtzan = one_stage(tmp_path / "gtzan", "tags", GTZAN, 2)
    fma = one_stage(tmp_path / "fma", "features", tuple(FMA_GENRES), 3)
    written = "map:\n" + "".join(f"  {name!r}: {to if to else 'null'}\n" for name, to in FMA_MAP.items())
    (tmp_path / "fma.yaml").write_text(written, encoding="utf-8")
    root = tmp_path / "all"
    run("join", root, thirteen, "--genres", ",".join(THIRTEEN))
    run("join", root, gtzan, "--prefix", "gtzan-")
    run("join", root, fma, "--map", tmp_path / "fma.yaml")
    return root


def test_three_lists_vote_in_one_bundle(joined: Path, tmp_path: Path) -> None:
    manifest = load(joined).manifest
    assert [stage.name for stage in manifest.stages] == ["tags", "gtzan-tags", "features"]
    assert [stage.head.classes(manifest.genres) for stage in manifest.stages] == [13, 10, 16]
    assert manifest.stage("tags").head.genres is None
    assert manifest.stage("gtzan-tags").head.map == dict(
        zip(GTZAN, (g for g in THIRTEEN if g not in ("Electronic", "Folk", "Spoken")), strict=True)
    )
    assert manifest.reference is not None
    samples = synth.music(4.0, 16_000, channels=1, seed=5)
    with Cascade.open(joined) as cascade:
        said = {answer.name: np.array(answer.probabilities) for answer in cascade.answers(samples, 16_000)}
        policy = cascade.plan.policy
        verdict = cascade.classify_samples(samples, 16_000)
    assert all(probabilities.shape == (13,) for probabilities in said.values())
    with Cascade.open(tmp_path / "fma") as alone:
        own = dict(zip(FMA_GENRES, alone.answers(samples, 16_000)[0].probabilities, strict=True))
    expected = np.zeros(13)
    for genre, to in FMA_MAP.items():
        for target, share in ({} if to is None else {to: 1.0} if isinstance(to, str) else to).items():
            expected[THIRTEEN.index(target)] += own[genre] * share
    np.testing.assert_allclose(said["features"], expected / expected.sum(), atol=1e-5)
    assert [said["gtzan-tags"][THIRTEEN.index(g)] for g in ("Electronic", "Folk", "Spoken")] == [0, 0, 0]
    assert policy.stages == ("tags", "gtzan-tags", "features")
    assert sum(score.score for score in verdict.top) == pytest.approx(1.0)


def test_verify_holds_each_head_to_its_own_logits(joined: Path) -> None:
    from edge_reclass_export.commands.verify import verify

    verify(joined)
    manifest = load(joined).manifest
    stage = bundles.read_manifest(joined)["stages"]
    stage[1]["head"]["temperature"] = 1.5  # as the map, it is read from the manifest: no other head
    bundles.edit_manifest(joined, stages=stage)
    verify(joined)
    bundles.write_head(joined / "heads/features.onnx", 8, classes=16, seed=9)
    bundles.rehash(joined)
    with pytest.raises(typer.Exit) as caught:
        verify(joined)
    assert caught.value.exit_code == 4
    assert manifest.stage("features").head.genres == list(FMA_GENRES)


def test_inspect_says_what_a_heads_genres_are(joined: Path) -> None:
    from edge_reclass.cli.inspection import describe

    text = describe(load(joined))
    assert "its own 16 genres: Blues, " in text
    assert "Experimental → none" in text
    assert "International → 0.5 Reggae + 0.5 Folk" in text
    assert "hiphop → Hip-Hop" in text


def test_a_genre_without_counterpart_is_asked_for_and_nothing_is_written(joined: Path, tmp_path: Path) -> None:
    before = contents(joined)
    other = one_stage(tmp_path / "other", "more", ("Rock", "Chanson", "Schlager"), 4)
    with pytest.raises(UsageError, match=r"no genre called Chanson, Schlager.*--map"):
        run("join", joined, other)
    (tmp_path / "m.yaml").write_text("map: {Chanson: Pop, Schlager: Volksmusik}\n")
    with pytest.raises(UsageError, match="Volksmusik"):
        run("join", joined, other, "--map", tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("map: {Chanson: Pop, Schlager: Pop, Polka: Pop}\n")
    with pytest.raises(UsageError, match="got Polka"):
        run("join", joined, other, "--map", tmp_path / "m.yaml")
    assert contents(joined) == before


def test_a_name_that_is_taken_is_refused(joined: Path, tmp_path: Path) -> None:
    before = contents(joined)
    with pytest.raises(UsageError, match="tags already: give --prefix"):
        run("join", joined, tmp_path / "gtzan")
    with pytest.raises(UsageError, match="has no stage tgas; it has tags"):
        join_bundles(joined, tmp_path / "gtzan", stages=["tgas"])
    with pytest.raises(UsageError, match="leave --genres out"):
        run("join", joined, tmp_path / "gtzan", "--prefix", "x-", "--genres", "A,B")
    with pytest.raises(UsageError, match="have genres of their own already"):
        run("join", tmp_path / "new", joined, "--genres", "Rock,Pop")
    with pytest.raises(BundleError):
        run("join", tmp_path / "new", tmp_path / "gtzan")
    assert contents(joined) == before
    assert not (tmp_path / "new").exists()


def test_what_a_head_takes_and_its_range_test_come_along(tmp_path: Path) -> None:
    first = bundles.waveform_stage("ears", window=8_000)
    test = {"file": "heads/both.range.onnx", "inputs": ["ears", "both"], "limit": 0.5}
    second = bundles.waveform_stage("both", head={"inputs": ["ears", "both"], "temperature": 0.5, "range": test})
    third = bundles.waveform_stage("left", window=8_000)
    other = bundles.make_bundle(tmp_path / "other", [first, second, third], excerpt={"start": "center", "seconds": 5.0})
    for i, name in enumerate(("ears", "both")):
        bundles.write_head(other / f"heads/{name}.onnx", 8 * (i + 1), seed=i)
    into = one_stage(tmp_path / "into", "own", ("Alpha", "Beta", "Gamma"), 1)
    weights = np.random.default_rng(0).normal(0, 0.3, (16, 3)).astype(np.float32)
    node = bundles.helper.make_node("MatMul", ["features", "W"], ["logits"])
    bundles.write_graph(other / "heads/both.onnx", ("features", 16), ("logits", 3), [node], {"W": weights})
    bundles.rehash(other)
    join_bundles(into, other, stages=["both"], prefix="b-")
    manifest = load(into).manifest
    assert [stage.name for stage in manifest.stages] == ["own", "b-ears", "b-both"]
    both = manifest.stage("b-both")
    assert both.head.inputs == ["b-ears", "b-both"] and both.head.temperature == 0.5
    assert both.head.range is not None and both.head.range.inputs == ["b-ears", "b-both"]
    assert both.head.genres is None  # the same list
    assert both.excerpt is not None and both.excerpt.seconds == 5.0
    assert manifest.provenance["b-both"]["joined_from"]["bundle"] == "test"
    samples = synth.music(6.0, 16_000, channels=1)
    with Cascade.open(other, policy="ladder") as there, Cascade.open(into, policy="soft") as here:
        old = {answer.name: answer for answer in there.answers(samples, 16_000)}
        new = {answer.name: answer for answer in here.answers(samples, 16_000)}
    assert new["b-both"].probabilities == old["both"].probabilities


def test_reference_vectors_and_licence_come_along(tmp_path: Path) -> None:
    head = head_file(tmp_path / "head.npz", classes=3)
    put_encoder(tmp_path / "other", small_encoder(), head=head, genres=["Alpha", "Gamma", "Beta"])
    into = one_stage(tmp_path / "into", "own", ("Alpha", "Beta", "Gamma"), 1)
    join_bundles(into, tmp_path / "other", prefix="x-")
    bundle = load(into)
    encoder = bundle.manifest.stage("x-small").encoder
    assert encoder.graph_files["fp32"] == "encoders/x-small.fp32.onnx"
    assert getattr(encoder, "reference") == "reference/x-small.npz"  # noqa: B009 - of one kind of encoder
    assert "LICENSE.small" in bundle.manifest.files
    assert bundle.manifest.stage("x-small").head.genres == ["Alpha", "Gamma", "Beta"]
    bundle.verify()


# --map of a recipe.


def head_file(path: Path, classes: int, genres: list[str] | None = None) -> Path:
    kernel = np.random.default_rng(classes).normal(0, 1, (4, classes))
    np.savez(path, kernel=kernel, bias=np.zeros(classes), **({} if genres is None else {"genres": np.array(genres)}))
    return path


def test_a_checkpoints_own_classes_are_mapped_into_a_bundle(tmp_path: Path) -> None:
    head = head_file(tmp_path / "head.npz", classes=4, genres=["a", "b", "x", "y"])
    own = OwnGenres({"a": "Alpha", "b": "Beta", "x": {"Alpha": 0.5, "Beta": 0.5}, "y": None})
    put_encoder(tmp_path / "new", small_encoder(), head=head, genres=["Alpha", "Beta"], own=own)
    entry = load(tmp_path / "new").manifest.stages[0].head
    assert (entry.genres, entry.map) == (["a", "b", "x", "y"], own.map)
    put_encoder(tmp_path / "new", small_encoder())  # the encoder anew; the head and how it is read stay
    assert load(tmp_path / "new").manifest.stages[0].head == entry
    put_encoder(tmp_path / "new", small_encoder(), head=head_file(tmp_path / "two.npz", classes=2))
    assert load(tmp_path / "new").manifest.stages[0].head.genres is None


def test_a_map_that_does_not_fit_its_head_is_refused_before_the_export(tmp_path: Path) -> None:
    head = head_file(tmp_path / "head.npz", classes=4, genres=["a", "b", "x", "y"])
    bare = head_file(tmp_path / "bare.npz", classes=4)
    whole = {"a": "Alpha", "b": "Beta", "x": None, "y": None}

    def read(file: Path, own: OwnGenres, genres: tuple[str, ...] = ("Alpha", "Beta")) -> list[str] | None:
        found = stage_head(tmp_path / "new", file, 4, genres, own=own).own
        return None if found is None else found.genres

    assert read(head, OwnGenres(whole)) == ["a", "b", "x", "y"]
    assert read(bare, OwnGenres(whole, ["y", "x", "b", "a"])) == ["y", "x", "b", "a"]
    with pytest.raises(UsageError, match="does not name its 4 classes"):
        read(bare, OwnGenres(whole))
    with pytest.raises(CheckpointError, match="its classes are"):
        read(head, OwnGenres(whole, ["y", "x", "b", "a"]))
    with pytest.raises(CheckpointError, match="4 classes, but there are 3 names"):
        read(bare, OwnGenres(whole, ["a", "b", "x"]))
    with pytest.raises(UsageError, match="says nothing of y"):
        read(head, OwnGenres({"a": "Alpha", "b": "Beta", "x": None}))
    with pytest.raises(UsageError, match="--genres"):
        read(head, OwnGenres(whole), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("genres: [a, b]", "map"),
        ("map: {a: 3}", "map"),
        ("map: {a: X, a: Y}", "a"),
        ("map: {a: {X: 2.0}}", "<= 1"),
        ("map: {a: X}\nmaps: {}", "maps"),
        ("map: [", "map"),
    ],
)
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(UsageError, match=str(tmp_path / "m.yaml")) as caught:
        read_own_genres(tmp_path / "m.yaml")
    assert said in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        read_own_genres(tmp_path / "absent.yaml")


def test_a_map_needs_a_head() -> None:
    with pytest.raises(UsageError, match="--map"):
        run("musicnn", "-o", "x.onnx", "--map", "m.yaml")
