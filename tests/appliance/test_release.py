"""A release that was altered, is incomplete, older or by somebody else; and that what was hashed is unpacked."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.signer import OTHER, OURS
from edge_reclass_appliance.errors import FAILED, NOT_TRUSTED, USAGE, ApplianceError
from edge_reclass_appliance.signatures import (
    MANIFEST,
    SIGNATURE,
    SignatureError,
    Trust,
    check_folder,
    made_release,
    manifest,
    opened,
    release,
    signed_release,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "program.tar").write_bytes(b"program " * 5000)
    (folder / "bundle.tar").write_bytes(b"bundle")
    OURS.release(folder)
    return folder


@pytest.fixture
def trust(root: Path) -> Trust:
    return Trust(key=OURS.text, root=root)


def refused(doing: Callable[[], Any]) -> SignatureError:
    with pytest.raises(SignatureError) as error:
        doing()
    assert error.value.code == NOT_TRUSTED
    return error.value


def test_a_release_as_it_was_made(folder: Path, trust: Trust) -> None:
    found = signed_release(folder, trust)
    assert (found.name, found.version, found.sequence) == ("edge-reclass", "1.0", 10)
    assert [entry.name for entry in found.files] == ["bundle.tar", "program.tar"]
    check_folder(folder, found)


def test_what_was_hashed_is_what_is_unpacked(folder: Path, trust: Trust, tmp_path: Path) -> None:
    data = (folder / "program.tar").read_bytes()
    with opened(folder / "program.tar", trust, tmp_path) as checked:
        (folder / "program.tar").write_bytes(b"evil")  # into the same file, by whoever owns it
        assert checked.path.read_bytes() == data
        assert checked.path.name == "program.tar"
        assert checked.path.parent.stat().st_mode & 0o077 == 0
        assert checked.release is not None
        assert checked.said == f"program.tar: signed by the key {OURS.id}, edge-reclass 1.0 (sequence 10)"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "root"]


@pytest.mark.parametrize("data", [b"program " * 4999 + b"pr0gram ", b"program " * 4999, b"", b"program " * 5001])
def test_an_altered_file(folder: Path, trust: Trust, tmp_path: Path, data: bytes) -> None:
    (folder / "program.tar").write_bytes(data)
    error = refused(lambda: opened(folder / "program.tar", trust, tmp_path).__enter__())
    assert "program.tar was altered: expected " in str(error)
    assert error.fix == "copy it again"
    assert "was altered" in str(refused(lambda: check_folder(folder, signed_release(folder, trust))))
    # The other one is as it was.
    with opened(folder / "bundle.tar", trust, tmp_path) as checked:
        assert checked.path.read_bytes() == b"bundle"


def test_a_file_that_grows_while_it_is_read_is_not_read_for_ever(tmp_path: Path) -> None:
    """A pipe stands for it: it never ends, and the reading does."""
    reading, writing = os.pipe()
    stop = threading.Event()

    def fill() -> None:
        with os.fdopen(writing, "wb", buffering=0) as stream:
            while not stop.is_set():
                try:
                    stream.write(bytes(65536))
                except BrokenPipeError:
                    return

    writer = threading.Thread(target=fill)
    writer.start()
    with os.fdopen(reading, "rb") as source:
        _, size = release._read(source, None, 1000)
    stop.set()
    writer.join(60)
    assert 1000 < size <= release._BLOCK


def test_a_missing_and_an_extra_file(folder: Path, trust: Trust) -> None:
    found = signed_release(folder, trust)
    (folder / "more.sh").write_bytes(b"")
    assert "not listed in the release: more.sh" in str(refused(lambda: check_folder(folder, found)))
    (folder / "more.sh").unlink()
    (folder / "bundle.tar").unlink()
    assert "missing: bundle.tar" in str(refused(lambda: check_folder(folder, found)))


def test_a_file_that_the_release_does_not_list(folder: Path, trust: Trust, tmp_path: Path) -> None:
    (folder / "more.tar").write_bytes(b"")
    error = refused(lambda: opened(folder / "more.tar", trust, tmp_path).__enter__())
    assert "more.tar is no file of the release edge-reclass 1.0" in str(error)


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_without_a_manifest_or_signature(folder: Path, trust: Trust, tmp_path: Path, name: str) -> None:
    (folder / name).unlink()
    error = refused(lambda: opened(folder / "bundle.tar", trust, tmp_path).__enter__())
    assert "the release is not signed, or incomplete" in str(error)
    assert "--insecure takes it unchecked" in error.fix


def test_an_altered_manifest(folder: Path, trust: Trust) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"sequence": 10', '"sequence": 99'))
    assert "release.json was changed" in str(refused(lambda: signed_release(folder, trust)))


def test_a_fifo_is_not_waited_for(folder: Path, trust: Trust, tmp_path: Path) -> None:
    (folder / "bundle.tar").unlink()
    os.mkfifo(folder / "bundle.tar")
    with pytest.raises(ApplianceError, match="expected a file, got something else") as error:
        opened(folder / "bundle.tar", trust, tmp_path).__enter__()
    assert error.value.code == USAGE
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    assert "expected a file" in str(refused(lambda: signed_release(folder, trust)))


def test_a_manifest_without_an_end(folder: Path, trust: Trust) -> None:
    with (folder / MANIFEST).open("r+b") as stream:
        stream.truncate(1 << 33)
    assert "expected at most 1048576 bytes" in str(refused(lambda: signed_release(folder, trust)))


def test_no_room_for_the_copy(folder: Path, trust: Trust) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("wb", buffering=0) as full, (folder / "bundle.tar").open("rb") as source:
        with pytest.raises(ApplianceError, match="no room") as error:
            release._read(source, full, None)
        assert (error.value.code, error.value.fix) == (FAILED, "df -h")


def test_a_scratch_folder_that_is_not_there(folder: Path, trust: Trust, tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="no folder can be made there"):
        opened(folder / "bundle.tar", trust, tmp_path / "none").__enter__()


def test_unchecked_in_words(tmp_path: Path, root: Path) -> None:
    (tmp_path / "own.tar").write_bytes(b"mine")
    with opened(tmp_path / "own.tar", Trust(insecure=True, root=root), tmp_path) as checked:
        assert checked.path == tmp_path / "own.tar"
    assert checked.release is None
    assert checked.said == "own.tar: NOT CHECKED (--insecure): nothing says who made it, or whether it was altered"


# Whom to trust


def test_no_key_is_known(folder: Path, root: Path) -> None:
    error = refused(lambda: signed_release(folder, Trust(root=root)))
    assert "no key is trusted on this machine yet" in str(error)
    assert "--key KEYFILE" in error.fix


def test_the_key_of_the_first_contact_is_kept(folder: Path, trust: Trust, root: Path) -> None:
    stored = root / "etc/edge-reclass/trusted.pub"
    found = signed_release(folder, trust)
    assert not stored.exists(), "looking changes nothing"
    assert trust.store_key() == stored
    assert trust.store_key() is None
    assert (stored.read_text().splitlines()[1], stored.stat().st_mode & 0o777) == (OURS.text, 0o644)
    assert signed_release(folder, Trust(root=root)) == found
    assert signed_release(folder, trust) == found


def test_later_it_must_be_the_same(folder: Path, trust: Trust, root: Path) -> None:
    trust.store_key()
    error = refused(lambda: signed_release(folder, Trust(key=OTHER.text, root=root)))
    assert str(error).startswith(f"--key is the key {OTHER.id}, but this machine trusts the key {OURS.id}")
    assert "sudo rm " in error.fix
    OTHER.release(folder, sequence=99)
    error = refused(lambda: signed_release(folder, Trust(root=root)))
    assert f"expected a signature by the key {OURS.id}, got one by the key {OTHER.id}" in str(error)


def test_a_stored_key_that_others_can_write_is_not_trusted(folder: Path, trust: Trust, root: Path) -> None:
    trust.store_key()
    trust.key_file.chmod(0o666)
    error = refused(lambda: signed_release(folder, Trust(root=root)))
    assert "expected a file that only root writes" in str(error)
    trust.key_file.chmod(0o644)
    trust.key_file.write_text("damaged")
    assert "trusted.pub: expected a minisign public key" in str(
        refused(lambda: signed_release(folder, Trust(root=root)))
    )


def test_nothing_older_comes_unasked(folder: Path, trust: Trust, root: Path) -> None:
    trust.remember(signed_release(folder, trust))
    OURS.release(folder, version="0.9", sequence=9)
    error = refused(lambda: signed_release(folder, trust))
    assert str(error) == ("edge-reclass 0.9 (sequence 9) is older than 1.0 (sequence 10), which was installed here")
    assert "--allow-downgrade" in error.fix
    back = Trust(root=root, allow_downgrade=True)
    back.remember(signed_release(folder, back))
    assert signed_release(folder, Trust(root=root)).version == "0.9"
    OURS.release(folder, version="1.1", sequence=11)
    assert signed_release(folder, Trust(root=root)).version == "1.1"


def test_each_name_has_sequences_of_its_own(folder: Path, trust: Trust, root: Path) -> None:
    trust.remember(signed_release(folder, trust))
    OURS.release(folder, name="my-bundle", sequence=3)
    trust.remember(signed_release(folder, trust))
    seen = json.loads((root / "etc/edge-reclass/releases.json").read_text())
    assert seen == {
        "edge-reclass": {"sequence": 10, "version": "1.0"},
        "my-bundle": {"sequence": 3, "version": "1.0"},
    }


def test_a_damaged_memory_is_said(folder: Path, trust: Trust, root: Path) -> None:
    trust.remember(signed_release(folder, trust))
    seen = root / "etc/edge-reclass/releases.json"
    for text in ("", "[]", '{"edge-reclass": 3}', '{"edge-reclass": {"sequence": "x", "version": ""}}'):
        seen.write_text(text)
        assert "is damaged" in str(refused(lambda: signed_release(folder, trust)))


# The manifest


def said(**changes: Any) -> bytes:
    file = {"name": "a.tar", "bytes": 1, "sha256": "0" * 64}
    base = {"format": 1, "project": "edge-reclass", "name": "n", "version": "1", "sequence": 1, "files": [file]}
    return json.dumps({**base, **changes}).encode()


def one_file(**changes: Any) -> dict[str, Any]:
    return {"files": [{"name": "a.tar", "bytes": 1, "sha256": "0" * 64, **changes}]}


def test_the_manifest_that_the_next_test_alters_is_good() -> None:
    assert manifest.read(said(), "here").entry("a.tar").bytes == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a release's manifest"),
        (b"\xff", "not a release's manifest"),
        (b"[" * 100_000, "not a release's manifest"),
        (b"[]", "not the manifest of a release"),
        (b'{"format": 1, "format": 1}', "stands there twice"),
        (said(project="other"), "not the manifest of a release"),
        (said(format=2), "expected format 1, got 2: this release is for a newer program"),
        (said(more=1), "expected the fields"),
        (said(version="1\n2"), "version: expected letters"),
        (said(version=1), "version: expected letters"),
        (said(name=""), "name: expected letters"),
        (said(sequence=-1), "sequence: expected a number"),
        (said(sequence=True), "sequence: expected a number"),
        (said(sequence=1.5), "sequence: expected a number"),
        (said(files=[]), "expected a list of files"),
        (said(files=[1]), "expected name, bytes and sha256"),
        (said(files=one_file()["files"] * 2), "a name is listed twice"),
        (said(**one_file(name="../a")), "expected the name of a file beside"),
        (said(**one_file(name="a/b")), "expected the name of a file beside"),
        (said(**one_file(name=".hidden")), "expected the name of a file beside"),
        (said(**one_file(name=MANIFEST)), "expected the name of a file beside"),
        (said(**one_file(name=3)), "expected the name of a file beside"),
        (said(**one_file(bytes=-1)), "expected its number of bytes"),
        (said(**one_file(sha256="0" * 63)), "expected a sha256 of 64 digits"),
        (said(**one_file(sha256="A" * 64)), "expected a sha256 of 64 digits"),
        (said(**one_file(more=1)), "expected name, bytes and sha256"),
    ],
)
def test_a_manifest_that_is_signed_and_still_wrong(data: bytes, message: str) -> None:
    assert message in str(refused(lambda: manifest.read(data, "here")))


def test_what_is_made_lists_every_file(folder: Path) -> None:
    made = made_release(folder, "n", "1", 1)
    assert made.entry("bundle.tar") == manifest.Entry("bundle.tar", 6, hashlib.sha256(b"bundle").hexdigest())
    assert manifest.read(made.to_bytes(), "here") == made


def test_what_cannot_be_part_of_a_release(folder: Path, tmp_path: Path) -> None:
    (folder / "with blank").touch()
    with pytest.raises(ApplianceError, match="expected a file whose name"):
        made_release(folder, "n", "1", 1)
    (folder / "with blank").unlink()
    (folder / "folder").mkdir()
    with pytest.raises(ApplianceError, match="expected a file, got something else"):
        made_release(folder, "n", "1", 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ApplianceError, match="there is no file to release"):
        made_release(empty, "n", "1", 1)
