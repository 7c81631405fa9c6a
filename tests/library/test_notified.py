"""A run as a systemd unit of Type=notify: it is ready before it ends, also where there is nothing to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edge_reclass.run import notify
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]


def test_a_run_without_work_is_ready_too(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else systemd calls the quiet night a failure (``Result=protocol``)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "told"))
        told.settimeout(60)
        monkeypatch.setenv(notify.NOTIFY_VARIABLE, str(tmp_path / "told"))
        for unchanged in (0, 3):
            assert len(library.done()) == 3 - unchanged
            lines = told.recv(4096).decode()
            assert "READY=1" in lines, lines
            told.setblocking(False)
            try:
                while told.recv(4096):
                    pass
            except BlockingIOError:
                told.settimeout(60)


def test_the_folder_of_fsck_is_passed_over(library: Library) -> None:
    """Only root may read it: at the top of an ext4 disk it would be a complaint every night."""
    library.add("lost+found/old.wav")
    assert len(library.done()) == 3
