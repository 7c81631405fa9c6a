"""The musicnn recipe against a float64 network that shares nothing with it but the checkpoint's reader."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from edge_reclass.bundle.reference import synthesise
from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.parity import run_graph
from edge_reclass_export.recipe import one_of
from edge_reclass_export.recipes.musicnn import musicnn_encoder
from edge_reclass_export.recipes.musicnn_model import (
    EMBEDDINGS,
    HOP_SAMPLES,
    SAMPLE_RATE,
    VARIANTS,
    WINDOW_SAMPLES,
    Embedding,
    MusicnnOptions,
    Variant,
)
from export.checkpoint_maker import checkpoint, musicnn_tensors, write_wheel
from export.musicnn_reference import Answer, answer, log_mel, patches

DIMS = {"penultimate": 200, "pool": 1506, "penultimate+pool": 1706}
ALL = MusicnnOptions("penultimate+pool", tags=True)


def oracle(wheel: MusicnnWheel, variant: str, audio: NDArray[np.float32], *, float16: bool) -> list[Answer]:
    """The oracle on the contiguous patches of ``audio``, with frames that lie inside."""
    bundle = wheel.checkpoint(variant)
    mel = log_mel(audio, center=False, float16=float16, dtype=np.float64)
    return [answer(bundle, patch) for patch in patches(mel)]


def windows(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Consecutive windows: the hop makes their frames contiguous."""
    count = (len(audio) - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    return np.stack([audio[HOP_SAMPLES * i :][:WINDOW_SAMPLES] for i in range(count)])


def decode(path: Path, seconds: float, start: float = 0.0) -> NDArray[np.float32]:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = audio[int(start * rate) : int((start + seconds) * rate)].mean(axis=1)
    return soxr.resample(mono, rate, SAMPLE_RATE).astype(np.float32)


def assert_agrees(got: list[NDArray[np.float32]], expected: list[Answer], tags_atol: float, relative: float) -> None:
    embedding, tags = got
    np.testing.assert_allclose(tags, [one.tags for one in expected], rtol=0, atol=tags_atol)
    for part, name in ((slice(0, 200), "penultimate"), (slice(200, 953), "mean_pool"), (slice(953, 1706), "max_pool")):
        want = np.array([getattr(one, name) for one in expected])
        error = np.linalg.norm(embedding[:, part] - want, axis=1) / np.linalg.norm(want, axis=1)
        assert error.max() < relative, f"{name}: relative error {error.max():.2e}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_weights_on_synthesised_audio(made_wheel: MusicnnWheel, variant: Variant) -> None:
    inputs = synthesise(SAMPLE_RATE, WINDOW_SAMPLES, 4)[[3, 6]]
    model = musicnn_encoder(made_wheel, variant=variant, options=ALL).model
    expected = [one for row in inputs for one in oracle(made_wheel, variant, row, float16=False)]
    assert_agrees(run_graph(model, inputs), expected, tags_atol=1e-5, relative=1e-5)


def test_consecutive_windows_are_the_references_contiguous_patches(made_wheel: MusicnnWheel) -> None:
    audio = synthesise(SAMPLE_RATE, WINDOW_SAMPLES + HOP_SAMPLES, 4)[3]
    model = musicnn_encoder(made_wheel, options=ALL).model
    expected = oracle(made_wheel, "msd", audio, float16=False)
    assert len(expected) == 2
    assert_agrees(run_graph(model, windows(audio)), expected, tags_atol=1e-5, relative=1e-5)


def test_float16_cast_follows_the_cast_and_differs_from_no_cast(made_wheel: MusicnnWheel) -> None:
    inputs = synthesise(SAMPLE_RATE, WINDOW_SAMPLES, 4)[[1]]
    cast = musicnn_encoder(made_wheel, options=MusicnnOptions("penultimate+pool", tags=True, float16_cast=True))
    got = run_graph(cast.model, inputs)
    assert_agrees(got, oracle(made_wheel, "msd", inputs[0], float16=True), tags_atol=1e-4, relative=1e-4)
    plain = run_graph(musicnn_encoder(made_wheel, options=ALL).model, inputs)
    assert 0 < np.abs(got[1] - plain[1]).max() < 5e-3
    assert cast.provenance["float16_cast"] is True


@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_file_rules_and_parts(made_wheel: MusicnnWheel, embedding: Embedding, tags: bool) -> None:
    options = MusicnnOptions(embedding, tags)
    content = musicnn_encoder(made_wheel, variant="mtt", options=options).model
    assert musicnn_encoder(made_wheel, variant="mtt", options=options).model == content
    model = onnx.load_model_from_string(content)
    assert (model.ir_version, model.opset_import[0].version, len(model.opset_import)) == (10, 18, 1)
    assert "Permission is hereby granted" in model.doc_string
    inputs = synthesise(SAMPLE_RATE, WINDOW_SAMPLES, 4)[[0, 7]]
    outputs = run_graph(content, inputs)
    assert [one.shape for one in outputs] == [(2, DIMS[embedding]), *([(2, 50)] if tags else [])]
    whole = run_graph(musicnn_encoder(made_wheel, variant="mtt", options=ALL).model, inputs)
    part = {"penultimate": slice(0, 200), "pool": slice(200, None), "penultimate+pool": slice(None)}[embedding]
    np.testing.assert_allclose(outputs[0], whole[0][:, part], rtol=1e-5, atol=1e-5)
    if tags:
        np.testing.assert_allclose(outputs[1], whole[1], atol=1e-6)


def test_a_window_does_not_depend_on_its_batch(made_wheel: MusicnnWheel) -> None:
    model = musicnn_encoder(made_wheel, options=ALL).model
    inputs = synthesise(SAMPLE_RATE, WINDOW_SAMPLES, 4)
    twelve = np.concatenate([inputs, inputs[:4]])
    together = run_graph(model, twelve)
    for row in (0, 6, 11):
        alone = run_graph(model, twelve[[row]])
        np.testing.assert_allclose(alone[0][0], together[0][row], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone[1][0], together[1][row], atol=1e-6)


def test_silence_and_full_scale_are_finite(made_wheel: MusicnnWheel) -> None:
    audio = np.stack([np.zeros(WINDOW_SAMPLES), np.ones(WINDOW_SAMPLES), np.resize([1.0, -1.0], WINDOW_SAMPLES)])
    for cast in (False, True):
        model = musicnn_encoder(made_wheel, options=MusicnnOptions(tags=True, float16_cast=cast)).model
        assert all(np.isfinite(one).all() for one in run_graph(model, audio.astype(np.float32)))


def test_names_of_options() -> None:
    assert [one_of("variant", name, VARIANTS) for name in ("msd", "mtt")] == list(get_args(Variant))
    assert [one_of("embedding", name, EMBEDDINGS) for name in DIMS] == list(DIMS)
    with pytest.raises(UsageError, match=r"no variant 'MSD_musicnn'.*msd, mtt"):
        one_of("variant", "MSD_musicnn", VARIANTS)
    with pytest.raises(UsageError, match=r"no embedding 'logits'.*penultimate"):
        one_of("embedding", "logits", EMBEDDINGS)


def _damaged_wheels(folder: Path) -> dict[str, tuple[Path, str]]:
    data = "musicnn/MSD_musicnn/.data-00000-of-00001"
    index, content = checkpoint(dict(musicnn_tensors(0)))
    thin = dict(musicnn_tensors(0))
    del thin["dense/kernel"]
    narrow = dict(musicnn_tensors(0))
    narrow["dense/kernel"] = narrow["dense/kernel"][:1505]
    files: dict[str, tuple[Path, str]] = {}

    def add(name: str, message: str, changed: dict[str, bytes] | None = None, without: str = "") -> None:
        files[name] = (write_wheel(folder / f"{name}.whl", changed=changed, without=without), message)

    def replaced(tensors: dict[str, NDArray[np.float32]]) -> dict[str, bytes]:
        other_index, other_data = checkpoint(dict(tensors))
        return {"musicnn/MSD_musicnn/.index": other_index, data: other_data}

    add("no_data", "holds no musicnn/MSD_musicnn/.data", without=data)
    add("short", "truncated", {data: content[:-5_000_000]})
    add("no_index", "no TensorFlow V2 checkpoint", {"musicnn/MSD_musicnn/.index": index[:20]})
    add("thin", "no tensor 'dense/kernel'", replaced(thin))
    add("narrow", r"shape \[1505, 200\], expected \[1506, 200\]", replaced(narrow))
    add("no_licence", "LICENSE.md", without="musicnn-0.1.0.dist-info/LICENSE.md")
    text = folder / "text.whl"
    text.write_bytes(b"no zip")
    files["text"] = (text, "is no wheel")
    archive = write_wheel(folder / "member.whl").read_bytes()
    broken = bytearray(archive)
    position = archive.index(content[:64]) + 100
    broken[position] ^= 1
    (folder / "member.whl").write_bytes(bytes(broken))
    files["member"] = (folder / "member.whl", "is corrupt")
    return files


def test_damaged_wheels_are_refused(tmp_path: Path) -> None:
    for path, message in _damaged_wheels(tmp_path).values():
        with pytest.raises(CheckpointError, match=message):
            musicnn_encoder(MusicnnWheel(path, sha256=None))


def test_only_the_pinned_wheel_is_taken(made_wheel_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected f38a4890c648c1dd"):
        MusicnnWheel(made_wheel_file)
    with pytest.raises(UsageError, match="cannot read the wheel"):
        MusicnnWheel(tmp_path / "absent.whl")


def test_tag_names_are_parsed_not_run(made_wheel: MusicnnWheel, tmp_path: Path) -> None:
    assert made_wheel.tag_names("mtt")[:2] == ("mtt 0", "mtt 1")
    for source, message in (
        (b"import os\nMSD_LABELS = os.listdir('/')\n", "not readable"),
        (b"MSD_LABELS = 3\n", "no list of names MSD_LABELS"),
        (b"MSD_LABELS = [\n", "not readable"),
        (b"", "no list of names MSD_LABELS"),
    ):
        path = write_wheel(tmp_path / "odd.whl", changed={"musicnn/configuration.py": source})
        with pytest.raises(CheckpointError, match=message):
            MusicnnWheel(path, sha256=None).tag_names("msd")


def test_real_tag_names(real_wheel: MusicnnWheel) -> None:
    msd, mtt = real_wheel.tag_names("msd"), real_wheel.tag_names("mtt")
    assert (len(msd), msd[0], msd[-1]) == (50, "rock", "happy")
    assert (len(mtt), mtt[0], mtt[-1]) == (50, "guitar", "choral")
    assert "Universitat Pompeu Fabra" in real_wheel.licence()


@pytest.mark.parametrize("variant", VARIANTS)
def test_real_weights_on_synthesised_audio(real_wheel: MusicnnWheel, variant: Variant) -> None:
    inputs = synthesise(SAMPLE_RATE, WINDOW_SAMPLES, 4)[[3, 6]]
    model = musicnn_encoder(real_wheel, variant=variant, options=ALL).model
    expected = [one for row in inputs for one in oracle(real_wheel, variant, row, float16=False)]
    assert_agrees(run_graph(model, inputs), expected, tags_atol=1e-5, relative=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "clip", ["audio/fma/000005.mp3", "audio/cc_music/Kevin_MacLeod_-_Vibe_Ace.hq.ogg", "emotify/pop/059.ogg"]
)
def test_real_weights_on_real_audio(real_wheel: MusicnnWheel, data: Path, variant: Variant, clip: str) -> None:
    """The promise is 1e-3 on the tags against the reference, which casts to float16; without its cast 1e-5."""
    audio = decode(data / clip, seconds=3.1, start=5.0)
    model = musicnn_encoder(real_wheel, variant=variant, options=ALL).model
    got = run_graph(model, windows(audio))
    assert_agrees(got, oracle(real_wheel, variant, audio, float16=True), tags_atol=1e-3, relative=1e-3)
    assert_agrees(got, oracle(real_wheel, variant, audio, float16=False), tags_atol=1e-5, relative=1e-5)


def test_published_tags_of_gtzan(real_wheel: MusicnnWheel, data: Path) -> None:
    """Tag curves made by the original package, from other encodings of the same clips, one patch a second."""
    published = np.load(data / "musicnn_tags" / "training_data_GTZAN_MSDmusicnn_taggram.npz")
    model = musicnn_encoder(real_wheel, options=MusicnnOptions(tags=True)).model
    with (data / "index.csv").open(encoding="utf-8") as stream:
        long_clips = [
            row for row in csv.DictReader(stream) if row["dataset"] == "gtzan" and float(row["seconds"]) >= 15
        ]
    differences = []
    for row in long_clips:
        curve = published["X"][published["IDS"] == f"{row['genre']}/{row['group']}.au"]
        if len(curve) == 0:
            continue
        audio = decode(data / row["path"], seconds=12.0)
        # Patch k starts at centred frame 61 k, which is the frame that starts half a frame earlier.
        starts = [256 * (61 * k - 1) for k in range(1, 9)]
        tags = run_graph(model, np.stack([audio[start:][:WINDOW_SAMPLES] for start in starts]))[1]
        differences.append(np.abs(tags - curve[1:9]).mean())
        if len(differences) == 3:
            break
    assert len(differences) == 3
    assert np.mean(differences) < 0.008
