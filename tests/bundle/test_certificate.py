"""Certificates in the manifest: what they hold for, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("onnx", reason="the bundles of these tests are written with it")

import bundles
from command import music, run
from edge_reclass.bundle import (
    MANIFEST,
    load,
    manifest_text,
    starter_path,
    void,
)
from edge_reclass.bundle.certificate import described, told
from edge_reclass.errors import BundleError

__all__ = ["music"]

RAN = {"mert": "cpu fp32"}
PROMISE = "on tracks like the 300 that it was counted on, at most 5 % of the verdicts differ"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle with a certificate for its policy."""
    made = bundles.make_bundle(tmp_path / "bundle", [bundles.fma_stage(), bundles.waveform_stage("mert")])
    manifest = load(made).manifest
    after = msgspec.structs.replace(manifest, certificates=[bundles.certificate(manifest, RAN)])
    (made / MANIFEST).write_text(manifest_text(after), encoding="utf-8")
    return made


def said(root: Path) -> str:
    manifest = load(root).manifest
    return "\n".join(described(manifest, manifest.certificates[0]))


def test_a_certificate_is_read_as_it_was_written(root: Path) -> None:
    manifest = load(root).manifest
    assert manifest.certificates == [bundles.certificate(manifest, RAN)]
    assert load(starter_path()).manifest.certificates == []


def test_inspect_says_what_is_certified(root: Path) -> None:
    text = run("inspect", root).stdout
    assert PROMISE in text and "(90 % sure)" in text
    assert "counted on cpu fp32: 7 of 300, 4 unsure; p = 0.02" in text and "exchangeable tracks" in text


@pytest.mark.parametrize("what", ["policy", "min_confidence", "heads", "encoders", "loudness", "graph"])
def test_it_is_void_when_what_it_holds_for_is_changed(root: Path, what: str) -> None:
    plain = bundles.read_manifest(root)
    if what == "policy":
        plain["policies"]["ladder"]["steps"][0]["accept"] = 0.5
    elif what == "min_confidence":
        plain["min_confidence"] = 0.3
    elif what == "heads":
        bundles.write_head(root / "heads/fma.onnx", 518, bias=(1.0, 0.0, 0.0))
    elif what == "encoders":
        plain["stages"][1]["encoder"]["hop_samples"] = 8_000
    elif what == "loudness":
        plain["stages"][0]["loudness"] = -20.0
    else:
        (root / "encoders/mert.fp32.onnx").write_bytes(b"another graph")
    bundles.edit_manifest(root, **{key: plain[key] for key in ("policies", "stages")})
    if what == "min_confidence":
        bundles.edit_manifest(root, min_confidence=0.3)
    bundles.rehash(root)
    text = said(root)
    assert text.startswith("void") and "changed" in text
    manifest = load(root).manifest
    assert (what == "graph") == (void(manifest, manifest.certificates[0]) is None)
    assert all(line.startswith("no certificate") for line in told(manifest, "ladder", RAN))


def test_what_changes_no_verdict_voids_nothing(root: Path) -> None:
    plain = bundles.read_manifest(root)
    plain["policies"]["other"] = plain["policies"]["ladder"]
    plain["policies"]["ladder"]["steps"][0]["windows"] = "all"
    bundles.edit_manifest(root, policies=plain["policies"], name="another", provenance={"note": "x"})
    assert PROMISE in said(root)


def test_it_says_nothing_of_another_device_precision_or_least_confidence(root: Path) -> None:
    manifest = load(root).manifest
    assert PROMISE in next(told(manifest, "ladder", RAN))
    (other,) = told(manifest, "ladder", {"mert": "tensorrt fp16"})
    assert "no certificate for tensorrt fp16" in other and "calibrate --check" in other
    (least,) = told(manifest, "ladder", RAN, 0.7)
    assert "policy or min_confidence was changed" in least


def test_explain_says_what_is_certified_on_this_device(root: Path, music: Path) -> None:
    assert f"ladder: {PROMISE}" in run("classify", "--bundle", root, "--explain", music).stderr
    assert PROMISE not in run("classify", "--bundle", root, music).stderr
    lower = run("classify", "--bundle", root, "--explain", "--min-confidence", 0.2, music).stderr
    assert PROMISE not in lower and "ladder: no certificate" in lower


def test_certificates_that_do_not_fit_are_refused(root: Path) -> None:
    manifest = load(root).manifest
    one = manifest.certificates[0]
    for wrong, message in (
        ([msgspec.structs.replace(one, policy="gone")], "certificates[0].policy: expected one of ladder"),
        ([one, one], "certificates: 2 of disagreement"),
        (
            [msgspec.structs.replace(one, counts=[msgspec.structs.replace(one.counts[0], mistakes=301)])],
            "301 mistakes in 300 tracks",
        ),
    ):
        with pytest.raises(BundleError) as refused:
            manifest_text(msgspec.structs.replace(manifest, certificates=wrong))
        assert message in str(refused.value)
    plain = bundles.read_manifest(root)
    plain["certificates"][0]["epsilon"] = 1.5
    bundles.edit_manifest(root, certificates=plain["certificates"])
    assert run("inspect", root).returncode == 4
