"""Synthetic bundles: complete, marked, with shares by design, and made once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench_report.conftest import NAMES
from edge_reclass import Cascade
from edge_reclass.bundle.loading import load
from edge_reclass.errors import BundleError, EdgeReclassError, UsageError
from edge_reclass.installing import install_command
from edge_reclass_bench.synthetic import build, make
from edge_reclass_bench.synthetic.build import export_process
from edge_reclass_bench.synthetic.calibration import CalibrationTracks
from edge_reclass_bench.synthetic.shares import thresholds
from edge_reclass_bench.synthetic.tracks import synthesised


def test_stages_stand_in_the_order_asked_for_and_are_all_marked(synthetic):
    manifest = load(synthetic.root).manifest
    assert [stage.name for stage in manifest.stages] == ["fma", *NAMES]
    assert set(manifest.stage("mert-95m").encoder.files) == {"fp32", "fp16"}
    for name in ("fma", *NAMES):
        assert manifest.provenance[name]["random_init"] is True
    assert "mean nothing" in manifest.provenance["synthetic"]["meaning"]
    for policy in manifest.policies:
        with pytest.raises(UsageError, match="--allow-random"):
            Cascade.open(synthetic.root, policy=policy)


def test_thorough_asks_all_and_early_exit_halves_at_every_stage(synthetic, audio):
    reached = {}
    for policy in ("thorough", "early-exit"):
        with Cascade.open(synthetic.root, policy=policy, allow_random=True, threads=1) as cascade:
            verdicts = [cascade.classify(file) for file in audio]
        assert {verdict.status for verdict in verdicts} == {"ok"}
        reached[policy] = [sum(len(verdict.stages) > i for verdict in verdicts) for i in range(3)]
        order = [stage for verdict in verdicts for stage in [report.name for report in verdict.stages]]
        assert order[0] == "fma"
    assert reached["thorough"] == [6, 6, 6]
    # Half of six leave, then half of three, which is rounded to two.
    assert reached["early-exit"] == [6, 3, 1]


def test_stages_run_in_the_order_that_was_asked_for(synthetic):
    policies = load(synthetic.root).manifest.policies
    assert [step.after for step in policies["early-exit"].steps] == ["fma", "mert-95m", "openjmla"]
    assert load(synthetic.root).manifest.default_policy == "early-exit"


def test_a_complete_bundle_is_reused_and_an_altered_one_refused(synthetic, audio, tmp_path):
    def forbidden(arguments):
        raise AssertionError(f"exported again: {arguments}")

    said: list[str] = []
    assert make(NAMES, synthetic.folder, audio=audio, run=forbidden, say=said.append) == synthetic.root
    assert said == [f"{synthetic.root}: complete, reused"]
    copy = tmp_path / synthetic.root.name
    shutil.copytree(synthetic.root, copy)
    (copy / "heads" / "fma.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"delete .* made again"):
        make(NAMES, tmp_path, run=forbidden)


def test_what_an_interrupted_run_had_exported_is_kept(synthetic, audio, tmp_path):
    runs: list[str] = []

    def breaks_down(arguments):
        runs.append(arguments[0])
        if arguments[0] == "openjmla":
            raise EdgeReclassError("no space left")
        shutil.copytree(synthetic.root, tmp_path / synthetic.root.name, dirs_exist_ok=True)
        _keep_stages(tmp_path / synthetic.root.name, ["fma", "mert-95m"][: len(runs)])

    for _ in range(2):
        with pytest.raises(EdgeReclassError, match="no space left"):
            make(NAMES, tmp_path, audio=audio, run=breaks_down)
    assert runs == ["fma-mlp", "mert", "openjmla", "openjmla"]


def _keep_stages(root: Path, names: list[str]) -> None:
    """The manifest as it is after the exports of ``names`` alone."""
    import msgspec

    from edge_reclass.bundle.loading import MANIFEST
    from edge_reclass.bundle.manifest import PolicyEntry, StepEntry, manifest_text

    manifest = load(root).manifest
    kept = msgspec.structs.replace(
        manifest,
        stages=[stage for stage in manifest.stages if stage.name in names],
        policies={"single": PolicyEntry("top1", [StepEntry(after=names[0], weights={names[0]: 1.0})])},
        default_policy="single",
        provenance={},
    )
    (root / MANIFEST).write_text(manifest_text(kept))


def test_exports_are_the_projects_own_commands(synthetic):
    commands = [arguments[0] for arguments in synthetic.exports.ran]
    assert commands == ["fma-mlp", "mert", "openjmla"]
    assert synthetic.exports.ran[1][1:3] == ["--random-init", "95m"]
    assert "--random-init" in synthetic.exports.ran[2]


@pytest.mark.parametrize("names", [[], ["vggish"], ["openjmla", "openjmla"]])
def test_unknown_names_are_refused_before_anything_is_written(names, tmp_path):
    with pytest.raises(UsageError, match="expected some of mert-95m"):
        make(names, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failing_export_is_reported_with_its_last_words(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: nothing can be exported")
    with pytest.raises(EdgeReclassError, match=r"expected exit code 0, got 2: .*give either a CHECKPOINT"):
        export_process(["mert", "--bundle", str(tmp_path / "b")])


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(EdgeReclassError, match=re.escape(install_command("export"))):
        make(["openjmla"], tmp_path)


@given(
    confidences=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=60, unique=True),
    share=st.floats(0, 1),
)
@example(confidences=[0.99, 0.9899999999999999], share=0.5)
def test_the_share_that_was_asked_for_leaves(confidences, share):
    (step,) = thresholds(["a", "b"], {"a": confidences, "b": confidences}, [share])
    leaving = sum(confidence > step.accept for confidence in confidences)
    assert leaving == step.exited == round(share * len(confidences))
    assert 0.0 <= step.accept <= 1.0


def test_later_stages_are_set_on_those_that_reach_them():
    said = {"a": [0.9, 0.8, 0.2, 0.1], "b": [0.1, 0.2, 0.7, 0.3], "c": [0.5] * 4}
    first, second = thresholds(["a", "b", "c"], said, [0.5, 0.5])
    assert (first.accept, first.exited) == (0.5, 2)
    assert (second.accept, second.entered, second.exited) == (0.5, 2, 1)


def test_equal_confidences_let_fewer_go_never_more():
    (step,) = thresholds(["a", "b"], {"a": [0.5, 0.5, 0.5, 0.4]}, [0.5])
    assert step.exited == 0


@pytest.mark.parametrize("shares", [[], [0.5, 0.5], [1.5]])
def test_shares_have_to_fit(shares):
    with pytest.raises(ValueError, match="expected 1 numbers within 0 and 1"):
        thresholds(["a", "b"], {"a": [0.5, 0.6]}, shares)


def test_synthesised_tracks_are_reproducible_and_differ():
    one, again, other = synthesised(1, 2.0), synthesised(1, 2.0), synthesised(2, 2.0)
    assert one.dtype == np.float32 and len(one) == 88_200
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert 0.89 <= np.abs(one).max() <= 0.91


def test_calibration_takes_tracks_from_all_over_and_passes_over_bad_ones(audio, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    tracks = CalibrationTracks([bad, *audio], number=4)
    assert tracks.description == "4 tracks of the user's"
    assert tracks.features(44_100).shape == (3, 518)
    with pytest.raises(UsageError, match="at least two tracks that can be decoded, got 0 of 1"):
        CalibrationTracks([bad]).features(44_100)
    with pytest.raises(ValueError, match="at least 2"):
        CalibrationTracks(audio, number=1)
