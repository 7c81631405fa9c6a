"""Archives that were altered: an error that says so."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from edge_reclass_appliance import unpacking
from edge_reclass_appliance.errors import ApplianceError


def archive(file: Path, **fields: str) -> Path:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(fields.pop("name", "a/file"))
        info.pax_headers = dict(fields)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    return file


@pytest.mark.parametrize("error", [lzma.LZMAError("corrupt"), ValueError("embedded null byte")])
def test_what_a_hostile_archive_raises_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def read(*_: object) -> None:
        raise error

    file = archive(tmp_path / "a.tar")
    monkeypatch.setattr(tarfile.TarFile, "next", read)
    with pytest.raises(ApplianceError, match="cannot be unpacked"):
        unpacking.unpack(file, tmp_path)


def test_a_member_that_is_called_dot_is_no_file_that_is_looked_for(tmp_path: Path) -> None:
    assert unpacking.read_member(archive(tmp_path / "dot.tar", name="."), "requirements.lock") is None
