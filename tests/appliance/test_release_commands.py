"""``verify-release`` and ``make-release`` as they are typed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from appliance.signer import OTHER, OURS
from edge_reclass_appliance import trust
from edge_reclass_appliance.__main__ import main
from edge_reclass_appliance.errors import FAILED, NOT_TRUSTED, USAGE
from edge_reclass_appliance.saying import Steps
from edge_reclass_appliance.signatures import MANIFEST, SIGNATURE, Release, SignatureError, Trust


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a.tar").write_bytes(b"a")
    (folder / "b.tar").write_bytes(b"b")
    return folder


def test_first_contact_then_without_a_key(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OURS.release(folder)
    root = ["--root", str(tmp_path / "root")]
    assert main(["verify-release", str(folder), *root]) == NOT_TRUSTED
    assert "no key is trusted on this machine yet" in capsys.readouterr().err
    assert main(["verify-release", str(folder), "--key", OURS.text, *root]) == 0
    said = capsys.readouterr()
    assert said.out == (
        f"edge-reclass 1.0 (sequence 10): signed by the key {OURS.id}, all 2 files are as they were made\n"
    )
    assert "the key is trusted from now on" in said.err
    (folder / "b.tar").unlink()
    assert main(["verify-release", str(folder / "a.tar"), *root]) == 0
    said = capsys.readouterr()
    assert (said.out.endswith(", a.tar is as it was made\n"), said.err) == (True, "")
    assert main(["verify-release", str(folder), *root]) == NOT_TRUSTED
    assert main(["verify-release", str(folder / "a.tar"), "--key", OTHER.text, *root]) == NOT_TRUSTED
    said = capsys.readouterr()
    assert "missing: b.tar" in said.err
    assert "but this machine trusts the key" in said.err


def test_a_key_is_not_kept_for_a_release_that_is_not_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OURS.release(folder)
    (folder / "a.tar").write_bytes(b"x")
    assert main(["verify-release", str(folder), "--key", OURS.text, "--root", str(tmp_path / "root")]) == NOT_TRUSTED
    assert "was altered" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_without_any_check_it_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-release", str(folder), "--insecure"]) == 0
    assert "NOT CHECKED (--insecure)" in capsys.readouterr().out


def test_the_sequence_is_that_of_the_wheelhouses(folder: Path) -> None:
    def sequence() -> int:
        assert main(["make-release", str(folder), "--version", "1"]) == 0
        return int(json.loads((folder / MANIFEST).read_text())["sequence"])

    assert sequence() > 1234
    text = b'{"sequence": 1234}'
    with tarfile.open(folder / "edge-reclass-1-debian12.tar", "w") as tar:
        member = tarfile.TarInfo("top/manifest.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    assert sequence() == 1234


def packaged(root: Path, monkeypatch: pytest.MonkeyPatch, sequence: int) -> Path:
    folder = root / "wheelhouse"
    folder.mkdir(parents=True, exist_ok=True)
    said = {"project": "edge-reclass", "version": f"1.{sequence}", "sequence": sequence}
    (folder / "manifest.json").write_text(json.dumps(said))
    monkeypatch.setattr(trust, "packaged", lambda _: folder)
    return folder


def test_a_package_brings_the_key_and_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = packaged(tmp_path, monkeypatch, 10)
    missing = Trust(key=str(tmp_path / "no.pub"), root=tmp_path)
    with pytest.raises(SignatureError, match="there is no such file"), trust.checked(source, missing, Steps()):
        pytest.fail("the key that was given is not there")
    with trust.checked(source, Trust(key=OURS.text, root=tmp_path), Steps(check=True)):
        pass
    assert not (tmp_path / "etc").exists(), "--check writes nothing"
    with trust.checked(source, Trust(key=OURS.text, root=tmp_path), Steps()):
        pass
    assert Trust(root=tmp_path).public_key().text.splitlines()[1] == OURS.text
    with pytest.raises(SignatureError), trust.checked(source, Trust(key=OTHER.text, root=tmp_path), Steps()):
        pytest.fail("another key than the trusted one")
    older = Release("edge-reclass", "1.9", 9, ())
    with pytest.raises(SignatureError, match=r"is older than 1\.10"):
        Trust(root=tmp_path).check_sequence(older)
    Trust(root=tmp_path, allow_downgrade=True).check_sequence(older)
    source = packaged(tmp_path, monkeypatch, 9)
    with (
        pytest.raises(SignatureError, match=r"is older than 1\.10"),
        trust.checked(source, Trust(root=tmp_path), Steps()),
    ):
        pytest.fail("an older package")


def test_a_package_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trust.checked(packaged(tmp_path, monkeypatch, 10), Trust(root=tmp_path), Steps()):
        pass
    assert not (tmp_path / "etc/edge-reclass/trusted.pub").exists()
    with pytest.raises(SignatureError, match="older than"):
        Trust(root=tmp_path).check_sequence(Release("edge-reclass", "1.9", 9, ()))


def test_a_folder_in_the_place_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "etc/edge-reclass/trusted.pub").mkdir(parents=True)
    with pytest.raises(SignatureError, match="got a folder") as refused:
        Trust(root=tmp_path).public_key()
    assert refused.value.fix.startswith("sudo mv ")


def test_what_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-release", str(folder / "none")]) == USAGE
    assert main(["make-release", str(folder / "none"), "--version", "1"]) == USAGE
    assert main(["make-release", str(folder), "--version", "a b"]) == USAGE
    assert capsys.readouterr().err.count("error: ") == 3


def test_the_same_files_make_the_same_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OURS.release(folder)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert main(["make-release", str(folder), "--version", "2.0"]) == 0
    first = (folder / MANIFEST).read_bytes()
    assert json.loads(first)["sequence"] == 1700000000
    assert not (folder / SIGNATURE).exists(), "a signature of another manifest"
    assert main(["make-release", str(folder), "--version", "2.0"]) == 0
    assert (folder / MANIFEST).read_bytes() == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert main(["make-release", str(folder), "--version", "2.0"]) == USAGE


def test_without_minisign_it_is_said_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert main(["make-release", str(folder), "--version", "1", "--sign", "any.key"]) == FAILED
    assert "sudo apt-get install minisign" in capsys.readouterr().err
    assert not (folder / MANIFEST).exists()


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
def test_made_signed_and_checked(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    public, secret = tmp_path / "k.pub", tmp_path / "k.key"
    pair = ["minisign", "-G", "-W", "-p", public, "-s", secret]
    made = subprocess.run(pair, capture_output=True, text=True, timeout=60, check=False)
    if made.returncode != 0:
        pytest.skip(f"this minisign makes no key without a password: {made.stderr.strip()}")
    assert main(["make-release", str(folder), "--version", "1", "--sequence", "7", "--sign", str(secret)]) == 0
    assert main(["verify-release", str(folder), "--key", str(public), "--root", str(tmp_path / "root")]) == 0
    assert "edge-reclass 1 (sequence 7): signed by the key" in capfd.readouterr().out
    (tmp_path / "wrong.key").write_text("no key")
    assert main(["make-release", str(folder), "--version", "2", "--sign", str(tmp_path / "wrong.key")]) == FAILED
    assert not (folder / SIGNATURE).exists()
    assert "minisign could not sign" in capfd.readouterr().err
