"""Manifests and bundles: what is read back, and that each fault is refused with file, key, expected and got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bundles
from edge_reclass.bundle import manifest_text
from edge_reclass.bundle.limits import text_faults
from edge_reclass.bundle.loading import MANIFEST, load
from edge_reclass.cascade.plan import choose_policy
from edge_reclass.errors import BundleError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return bundles.make_bundle(tmp_path / "b", [bundles.fma_stage(), bundles.waveform_stage("mert")])


def test_load_and_verify(root: Path) -> None:
    bundle = load(root)
    bundle.verify()
    assert bundle.manifest.genres == list(bundles.GENRES)
    assert bundle.manifest.stage("mert").encoder.dim == 8
    assert bundle.manifest.stage("fma").encoder.dim == 518
    assert len(bundle.digest) == 64


def test_manifest_text_reads_back_equal(root: Path) -> None:
    manifest = load(root).manifest
    (root / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    assert load(root).manifest == manifest


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).filter(
    lambda text: not any(text_faults(text))
)


@given(genres=st.lists(names, min_size=2, max_size=6, unique=True))
def test_any_genre_name_survives_yaml(genres: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = bundles.make_bundle(tmp_path_factory.mktemp("b"), [bundles.fma_stage()], genres=genres)
    assert load(root).manifest.genres == genres


def test_genres_that_yaml_takes_for_booleans_are_refused(root: Path) -> None:
    text = (root / MANIFEST).read_text(encoding="utf-8").replace("Alpha", "No", 1)
    (root / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"Expected `str`, got `bool` - at `\$\.genres\[0\]`, got False"):
        load(root)


def fault(root: Path, **changes: Any) -> str:
    bundles.edit_manifest(root, **changes)
    with pytest.raises(BundleError) as error:
        choose_policy(load(root))
    assert error.value.exit_code == 4
    message = str(error.value)
    assert str(root) in message
    return message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"format": 2}, ["format", "expected 1", "got 2"]),
        ({"name": None}, ["missing required field `name`"]),
        ({"colour": "red"}, ["unknown field `colour`"]),
        ({"genres": ["One"]}, ["genres", ">= 2"]),
        ({"genres": ["A", "B", "A"]}, ["genres", "duplicate 'A'"]),
        ({"genres": ["A", "B\x1b[31m"]}, ["no control characters", "\\x1b[31m"]),
        ({"excerpt": {"start": "center", "seconds": float("inf")}}, ["excerpt.seconds", "<= 3600", "got inf"]),
        ({"excerpt": {"start": float("nan"), "seconds": 2.0}}, ["excerpt"]),
        ({"stages": [bundles.fma_stage(head={"temperature": 1e-320})]}, ["temperature", ">= 0.001"]),
        ({"stages": [bundles.fma_stage(head={"temperature": float("nan")})]}, ["temperature"]),
        (
            {"stages": [bundles.fma_stage(encoder={"window_samples": 10**12, "hop_samples": 1})]},
            ["window_samples", "<= 115200000"],
        ),
        ({"default_policy": "other"}, ["default_policy", "expected one of ladder", "'other'"]),
        ({"excerpt": {"full": True, "seconds": 3}}, ["excerpt", "full: true cannot be combined with start or seconds"]),
        ({"excerpt": {"start": "center"}}, ["excerpt: expected seconds"]),
        ({"excerpt": {"start": -1.0, "seconds": 2.0}}, ["excerpt.start", ">= 0", "got -1.0"]),
        ({"stages": [bundles.fma_stage(), bundles.fma_stage()]}, ["stages", "duplicate name 'fma'"]),
        ({"stages": [bundles.fma_stage(rate=4000)]}, ["encoder.rate", ">= 8000", "got 4000"]),
        ({"stages": [bundles.fma_stage(head={"inputs": ["x"]})]}, ["head.inputs", "got x"]),
        ({"stages": [bundles.fma_stage(head={"temperature": 0})]}, ["temperature", "got 0"]),
        ({"stages": [bundles.fma_stage(encoder={"window_samples": 9})]}, ["go together"]),
        (
            {"stages": [bundles.fma_stage(encoder={"rate": "native", "window_samples": 9, "hop_samples": 9})]},
            ["rate: native"],
        ),
        (
            {"stages": [bundles.waveform_stage("mert", encoder={"hop_samples": 99_999})]},
            ["hop_samples", "got 99999"],
        ),
        ({"stages": [bundles.waveform_stage("mert", encoder={"files": {"fp64": "x"}})]}, ["fp64"]),
        (
            {"stages": [bundles.waveform_stage("mert", encoder={"files": {}})]},
            ["at least one of fp32, fp16, got none"],
        ),
        (
            {"stages": [bundles.waveform_stage("mert", encoder={"files": {"fp32": "../x.onnx"}})]},
            ["'../x.onnx'"],
        ),
        ({"stages": [bundles.waveform_stage("mert", encoder={"files": {"fp32": "/x.onnx"}})]}, ["'/x.onnx'"]),
        ({"stages": [bundles.waveform_stage("mert", encoder={"files": {"fp32": "y.onnx"}})]}, ["not listed"]),
        (
            {"policies": {"ladder": {"vote": "soft", "steps": [{"after": "nope", "weights": {"nope": 1.0}}]}}},
            ["policies.ladder", "expected one of the stages fma, mert", "'nope'"],
        ),
        (
            {"stages": [bundles.fma_stage(head={"inputs": ["fma", "mert"]}), bundles.waveform_stage("mert")]},
            ["the head of fma takes mert"],
        ),
    ],
)
def test_faulty_manifests_are_refused(root: Path, changes: dict[str, Any], parts: list[str]) -> None:
    message = fault(root, **changes)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("format: 1\nformat: 1\n", "duplicate key 'format'"),
        ("format: [", "not valid YAML"),
        ("- 1\n", "Expected `object`, got `array`"),
        ("1: 2\n", "expected a text key"),
        ("c: {<<: {b: 1}}\n", "line 1, column 5: merge keys are not supported"),
        ("a: !!python/object:os.system {}\n", "tags are not supported"),
        ("", "Expected `object`, got `null`"),
    ],
)
def test_faulty_yaml_is_refused(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError) as error:
        load(tmp_path)
    assert part in str(error.value)


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"a bundle is a directory with a bundle\.yaml"):
        load(tmp_path / "nothing")


def test_altered_truncated_and_missing_files_are_refused(root: Path) -> None:
    bundle = load(root)
    head = root / "heads/mert.onnx"
    original = head.read_bytes()
    head.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"mert\.onnx: expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        bundle.verify()
    head.write_bytes(original[:-1])
    with pytest.raises(BundleError, match=rf"expected {len(original)} bytes, got {len(original) - 1}"):
        bundle.verify()
    head.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.verify()


def test_policies_by_name(root: Path, tmp_path: Path) -> None:
    bundle = load(root)
    assert choose_policy(bundle).name == "ladder"
    with pytest.raises(UsageError, match="this bundle has fma, mert"):
        choose_policy(bundle, "fmj-ev")
    with pytest.raises(UsageError, match=r"no policy 'nope': the bundle test has ladder; presets"):
        choose_policy(bundle, "nope")
    stages = [bundles.waveform_stage("jmla"), bundles.fma_stage(), bundles.waveform_stage("mert")]
    three = load(bundles.make_bundle(tmp_path / "three", stages))
    assert choose_policy(three, "plex-config").stages == ("fma", "mert", "jmla")
    fused = [
        bundles.waveform_stage("jmla"),
        bundles.waveform_stage("mert"),
        bundles.fma_stage(head={"inputs": ["fma", "mert"]}),
    ]
    with pytest.raises(UsageError, match="the head of fma takes mert"):
        choose_policy(load(bundles.make_bundle(tmp_path / "fused", fused)), "fmj-ev")
