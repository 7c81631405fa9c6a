"""What a bundle keeps of the tracks that it was fitted on comes back; what is damaged is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="bundles are made with the extra [fit]")

import bundles
import labelled_music as made
from edge_reclass.bundle import load
from edge_reclass.errors import BundleError
from edge_reclass_learn.hearing import memory
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.listening import listening


def test_memory_comes_back_as_it_was(tmp_path: Path) -> None:
    bundle = load(made.base(tmp_path / "base"))
    heard = listening(bundle)
    assert memory.recall(bundle, heard) == []
    random = np.random.default_rng(0)
    tracks = []
    for i in range(120):
        vectors = {stage: random.normal(0, 1e4, made.PARTS).astype(np.float32) for stage in heard.inputs}
        vectors["low"][0] = 1e9  # what float16 does not hold
        embeddings = {(stage, count): vectors[stage] for stage, counts in heard.counts.items() for count in counts}
        tracks.append(Example(f"/home/me/{i}.mp3", bundle.manifest.genres[i % 2], f"artist {i // 6}", embeddings, {}))
    content = memory.remember(tracks, heard, bundle.manifest.genres)
    assert content == memory.remember(tracks, heard, bundle.manifest.genres)
    with np.load(io.BytesIO(content)) as arrays:
        assert {array.dtype.kind for array in arrays.values()} == {"f", "i", "u"}, "no names"
    found = remembered(tmp_path / "base", content)
    assert len(found) == 2 * memory.MOST
    assert len({one.group for one in found}) == 20, "of every artist"
    kept = {tuple(track.embeddings["high", None].astype(np.float16).tolist()) for track in tracks}
    for one in found:
        assert tuple(one.embeddings["high", None].tolist()) in kept
        assert one.embeddings["low", 1][0] == np.finfo(np.float16).max and one.remembered


def remembered(root: Path, content: bytes) -> list[Example]:
    (root / memory.FILE).parent.mkdir(exist_ok=True)
    (root / memory.FILE).write_bytes(content)
    files = bundles.read_manifest(root)["files"]
    bundles.edit_manifest(root, files=files | bundles.entries(root, [memory.FILE]))
    bundle = load(root)
    return memory.recall(bundle, listening(bundle))


@pytest.mark.parametrize("damage", ["bytes", "genre", "nan", "width"])
def test_a_damaged_memory_is_refused(tmp_path: Path, damage: str) -> None:
    root = made.base(tmp_path / "base")
    vectors = {stage: np.zeros((4, made.PARTS)) for stage in ("low", "high")}
    if damage == "nan":
        vectors["low"][0, 0] = np.nan
    if damage == "width":
        vectors["low"] = np.zeros((4, 3))
    genres = ["Alpha", "Beta"] * 2
    content = memory.packed(vectors, genres, genres, ["x"] * 9 + genres[:2] if damage == "genre" else ["Alpha", "Beta"])
    with pytest.raises(BundleError, match=r"embeddings\.npz: "):
        remembered(root, content[:-40] if damage == "bytes" else content)
