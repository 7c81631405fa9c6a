"""A service's life as systemd sees it: ready once, alive with every verdict, stopping at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

import bundles


def test_classify_tells_systemd(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path / "bundle", [bundles.waveform_stage("mert")])
    music = tmp_path / "music"
    music.mkdir()
    for i in range(3):
        soundfile.write(music / f"{i}.wav", np.random.default_rng(i).normal(0, 0.1, 32_000), 16_000)
    (music / "broken.wav").write_bytes(b"RIFF")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(1)
        done = subprocess.run(
            [sys.executable, "-m", "edge_reclass", "classify", str(music), "--bundle", str(root)],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 3, done.stderr
        told = [service.recv(4096).decode().split("\n") for _ in range(6)]
    assert told[0] == ["READY=1", "STATUS=classifying 4 tracks"]
    assert [lines[0] for lines in told[1:]] == ["WATCHDOG=1"] * 4 + ["STOPPING=1"]
    assert told[4][1] == "STATUS=4 of 4 tracks, 1 failed"
