"""The bundle that is embedded in the package: whole and documented, and any music gets a genre from it."""

from __future__ import annotations

import numpy as np
import pytest

import synth
from edge_reclass import Cascade
from edge_reclass.bundle import WaveformEntry
from edge_reclass.bundle.loading import MANIFEST, load, starter_path
from edge_reclass.bundle.reference import agreement, load_reference
from edge_reclass.cascade.plan import choose_policy


def test_it_is_whole() -> None:
    bundle = load(starter_path())
    bundle.verify()
    listed = {MANIFEST, *bundle.manifest.files}
    found = {path.relative_to(bundle.root).as_posix() for path in bundle.root.rglob("*") if path.is_file()}
    assert found == listed, "every file is listed, and nothing else lies there"
    assert {"README.md", "LICENSE.musicnn"} <= listed
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 8e6
    for policy in bundle.manifest.policies:
        choose_policy(bundle, policy)


def test_its_card_names_its_genres_and_policy() -> None:
    bundle = load(starter_path())
    card = bundle.path("README.md").read_text(encoding="utf-8")
    assert ", ".join(bundle.manifest.genres) in card
    accept = bundle.manifest.policies[bundle.manifest.default_policy].steps[0].accept
    assert f"Thresholds: 3 windows of fma {accept:g}" in card
    assert f"below {bundle.manifest.min_confidence:g}" in card
    assert "Music Technology Group" in bundle.path("LICENSE.musicnn").read_text(encoding="utf-8")


def test_its_encoder_gives_the_reference_vectors() -> None:
    from edge_reclass.backends.ort.cpu import OrtBackend

    bundle = load(starter_path())
    entry = bundle.manifest.stage("musicnn").encoder
    assert isinstance(entry, WaveformEntry)
    assert entry.reference is not None
    reference = load_reference(bundle.path(entry.reference))
    rows = reference.inputs()
    graph = OrtBackend(1).open_graph(
        bundle.path(entry.files["fp32"]),
        input_name="waveform",
        output_name="embedding",
        width=entry.window_samples,
        output_width=entry.dim,
        max_batch=len(rows),
    )
    graph.input[:] = rows
    found = agreement(reference.embedding, graph.run(len(rows)))
    graph.close()
    assert found.cosine > 0.99999
    assert found.relative < 1e-3


def test_any_music_gets_a_genre(cascade: Cascade) -> None:
    verdict = cascade.classify_samples(synth.music(12), 44_100)
    assert verdict.status == "ok"
    assert verdict.genre in cascade.plan.genres
    assert sum(score.score for score in verdict.top) == pytest.approx(1)


def test_policies(cascade: Cascade) -> None:
    samples = synth.music(12)
    with Cascade.open(policy="fast") as fast, Cascade.open(policy="thorough") as thorough:
        assert [stage.name for stage in fast.classify_samples(samples, 44_100).stages] == ["fma"]
        assert [stage.name for stage in thorough.classify_samples(samples, 44_100).stages] == ["fma", "musicnn"]


def test_the_range_test_can_be_turned_off() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(5 * 22_050) / 22_050).astype(np.float32)[:, None]
    with Cascade.open(min_confidence=0.0) as always:
        verdict = always.classify_samples(tone, 22_050)
    assert verdict.status == "ok"
    assert len(verdict.stages) == 2, "no early exit from outside the range"
