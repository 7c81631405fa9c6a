"""Who may write an engine store, and whose records are taken."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reclass.engines.trust import SECRET, make_secret, open_store
from edge_reclass.errors import EngineError

ROOT = os.geteuid() == 0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o755)
    make_secret(folder)
    return folder


def test_the_secret_is_made_once_and_is_for_the_stores_group(store: Path) -> None:
    file = store / SECRET
    first = file.read_bytes()
    assert len(first) == 32 and file.stat().st_mode & 0o777 == 0o640
    assert file.stat().st_gid == store.stat().st_gid
    assert make_secret(store).secret == first
    assert [path.name for path in store.iterdir()] == [SECRET]


def test_a_signature_is_of_one_content_and_one_store(store: Path, tmp_path: Path) -> None:
    key = open_store(store)
    signature = key.sign(b"content")
    assert key.signed(b"content", signature)
    assert not key.signed(b"Content", signature)
    assert not key.signed(b"content", "")
    assert not key.signed(b"content", "\u00e4")
    (tmp_path / "other").mkdir()
    assert not make_secret(tmp_path / "other").signed(b"content", signature)


def test_without_a_secret_nothing_is_signed(tmp_path: Path) -> None:
    key = open_store(tmp_path)
    assert key.secret is None and not key.signed(b"", "")
    with pytest.raises(EngineError, match="no secret to sign with"):
        key.sign(b"")


@pytest.mark.parametrize("mode", [0o757, 0o777, 0o1777])
def test_a_store_that_others_may_write_is_refused(store: Path, mode: int) -> None:
    store.chmod(mode)
    with pytest.raises(EngineError, match="others may write it"):
        open_store(store)
    with pytest.raises(EngineError, match="others may write it"):
        make_secret(store)


@pytest.mark.parametrize("mode", [0o644, 0o660 | 0o002, 0o604])
def test_a_secret_that_others_know_is_none(store: Path, mode: int) -> None:
    (store / SECRET).chmod(mode)
    with pytest.raises(EngineError, match="others cannot read"):
        open_store(store)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_secret_of_another_length_is_none(store: Path, content: bytes) -> None:
    (store / SECRET).write_bytes(content)
    with pytest.raises(EngineError, match="expected 32 bytes"):
        open_store(store)


def test_a_link_is_no_secret(store: Path, tmp_path: Path) -> None:
    (store / SECRET).rename(tmp_path / "elsewhere")
    (store / SECRET).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="cannot be read"):
        open_store(store)


def test_parts_of_a_store_that_others_may_write_are_refused(store: Path) -> None:
    part = store / "plan"
    part.write_bytes(b"")
    key = open_store(store)
    part.chmod(0o644)
    key.require_trusted(part)
    part.chmod(0o646)
    with pytest.raises(EngineError, match="others may write it"):
        key.require_trusted(part)


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_files_of_somebody_else_are_refused(store: Path) -> None:
    os.chown(store, 12345, 12345)
    with pytest.raises(EngineError, match="it belongs to user 12345, expected 0"):
        open_store(store)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that others reach, which those above tmp_path forbid."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_one_user_builds_and_another_of_the_group_reads(public: Path) -> None:
    """Root builds with the service's group; its user reads; a stranger does not; a fellow of the group is believed."""
    store = public / "store"
    store.mkdir(mode=0o755)
    os.chown(store, 0, 4242)
    secret = make_secret(store).secret

    def as_user(user: int, group: int) -> str:
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.setgroups([])
                os.setgid(group)
                os.setuid(user)
                answer = "same" if open_store(store).secret == secret else "other"
            except EngineError as error:
                answer = str(error)
            os.write(writing, answer.encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            text = stream.read()
        os.waitpid(child, 0)
        return text

    assert as_user(1234, 4242) == "same"
    assert "Permission denied" in as_user(1234, 1234) and "chgrp" in as_user(1234, 1234)
    for path in (store, store / SECRET):
        os.chown(path, 777, 4242)
    assert as_user(1234, 4242) == "same"
    with pytest.raises(EngineError, match="belongs to user 777"):
        open_store(store)
