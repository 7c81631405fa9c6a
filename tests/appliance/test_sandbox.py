"""edge-reclass.service's sandbox: its own command classifies in it, and nothing else is possible."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance import sandbox
from appliance.unit_file import Unit, last, parse, plan
from edge_reclass_appliance import tone, units

REASON = sandbox.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no sandbox here: {REASON}")

PROGRAM = Path(sys.prefix) / "bin" / "edge-reclass"


@dataclass(frozen=True)
class Appliance:
    """A device in a folder: what an installation would have made."""

    unit: Unit
    music: Path
    state: Path
    cache: Path

    def run(self, program: list[str], environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        line = sandbox.command(self.unit, program, outside=self._outside(), cache=self.cache, environ=environ or {})
        return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)

    def _outside(self) -> list[Path]:
        """Where a test keeps what a device has in /opt and /srv: the Python, the checkout, the music."""
        checkout = Path(__file__).resolve().parents[2]
        return [Path(sys.base_prefix).resolve(), Path(sys.prefix), checkout, self.music]

    @property
    def service(self) -> list[str]:
        return shlex.split(last(self.unit, "Service", "ExecStart"))

    def verdicts(self) -> list[dict[str, Any]]:
        export = [str(PROGRAM), "library", "export", str(self.state / "library/library.state")]
        done = subprocess.run(export, capture_output=True, text=True, check=True, timeout=120)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def appliance(tmp_path: Path) -> Appliance:
    """With the unit of a run at a time of the day, which ends."""
    from edge_reclass.bundle.loading import starter_path

    folders = {name: tmp_path / name for name in ("the music", "state", "cache")}
    for folder in folders.values():
        folder.mkdir()
    (folders["state"] / "bundles").mkdir()
    (folders["state"] / "engines").mkdir()
    (folders["state"] / "library").mkdir()
    (folders["state"] / "bundles/current").symlink_to(starter_path())
    # No setting may name a folder of music in /tmp, where pytest's are.
    text = units.render(plan(when="daily", music=("/srv/the music",)))[units.SERVICE]
    text = text.replace("/srv/the music", str(folders["the music"]))
    text = text.replace("/var/lib/edge-reclass", str(folders["state"])).replace("/opt/edge-reclass/venv", sys.prefix)
    return Appliance(parse(text), folders["the music"], folders["state"], folders["cache"])


@pytest.fixture
def listening() -> Iterator[int]:
    """A TCP server on this machine, which takes every connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join()


needs_program = pytest.mark.skipif(not PROGRAM.is_file(), reason=f"edge-reclass is not installed: no {PROGRAM}")


@needs_program
def test_the_units_own_command_classifies(appliance: Appliance) -> None:
    tone.write(appliance.music / "a tone.wav")
    done = appliance.run(appliance.service)
    assert done.returncode == 0, done.stderr
    (verdict,) = appliance.verdicts()
    assert verdict["status"] == "unsure"  # a tone is no music
    assert verdict["bundle"] == "starter"
    assert [path.name for path in appliance.music.iterdir()] == ["a tone.wav"]


@needs_program
def test_real_audio_has_the_same_verdict_as_outside(appliance: Appliance, data: Path) -> None:
    import soundfile

    for clip in (sorted((data / "gtzan").rglob("*.ogg"))[0], *sorted((data / "audio").rglob("*.mp3"))[:1]):
        (appliance.music / clip.name).write_bytes(clip.read_bytes())
        samples, rate = soundfile.read(clip, dtype="float32")
        soundfile.write(appliance.music / f"{clip.stem}.wav", samples, rate, subtype="PCM_16")
    done = appliance.run(appliance.service)
    assert done.returncode == 0, done.stderr
    inside = appliance.verdicts()
    outside = subprocess.run(
        [str(PROGRAM), "classify", str(appliance.music), "--format", "jsonl"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    expected = [json.loads(line) for line in outside.stdout.splitlines()]
    keys = ("path", "status", "genre", "confidence", "decided_by")
    assert sorted([one[key] for key in keys] for one in inside) == sorted(
        [one[key] for key in keys] for one in expected
    )
    assert {one["status"] for one in inside} == {"ok"}
    # The neural stage ran in there too: no forbidden system call was needed.
    assert "musicnn" in {stage["name"] for one in inside for stage in one["stages"]}


@needs_program
def test_what_is_not_one_whole_file_is_decoded_too(appliance: Appliance) -> None:
    """libsndfile reads it through callbacks, whose code is made at run time."""
    import soundfile

    for suffix in ("flac", "ogg"):
        tone.write(appliance.cache / "tone.wav")
        samples, rate = soundfile.read(appliance.cache / "tone.wav", dtype="float32")
        soundfile.write(appliance.cache / f"tone.{suffix}", samples, rate)
    tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
    (appliance.music / "tagged.flac").write_bytes(tag + (appliance.cache / "tone.flac").read_bytes())
    (appliance.music / "chained.ogg").write_bytes((appliance.cache / "tone.ogg").read_bytes() * 2)
    done = appliance.run(appliance.service)
    assert done.returncode == 0, done.stderr
    assert [(one["status"], one["error"]) for one in appliance.verdicts()] == [("unsure", None)] * 2


def test_nothing_else_is_possible(appliance: Appliance, listening: int) -> None:
    forbidden = [
        "/etc",
        "/var/lib",
        "/opt",
        "/usr/lib",
        str(appliance.music),
        str(appliance.state / "bundles"),
        str(appliance.state / "engines"),
        str(Path(sys.prefix)),
    ]
    probe = [
        sys.executable,
        str(Path(__file__).with_name("probe.py")),
        str(listening),
        str(appliance.state),
        *forbidden,
    ]
    outside = json.loads(subprocess.run(probe, capture_output=True, text=True, check=True, timeout=60).stdout)
    done = appliance.run(probe)
    assert done.returncode == 0, done.stderr
    inside = json.loads(done.stdout)

    assert inside["tcp connection"] != "yes" and outside["tcp connection"] == "yes"
    assert inside["internet socket"] != "yes" and outside["internet socket"] == "yes"
    assert inside["netlink socket"] != "yes" and outside["netlink socket"] == "yes"
    assert inside["user namespace"] != "yes"
    for path in forbidden:
        assert inside[f"write {path}"] != "yes", path
    assert outside[f"write {appliance.music}"] == "yes"
    assert inside["capabilities"].strip("0") == ""
    assert inside["more than the usual devices"] == ""
    assert int(inside["processes"]) <= 3 < int(outside["processes"])
    # What it needs is there.
    assert inside["unix socket"] == "yes"
    assert inside["write results"] == "yes"
    assert inside["write /tmp"] == "yes"
    assert int(outside["files of /tmp"]) >= 1


def test_without_the_sandbox_the_same_network_would_be_reached(appliance: Appliance, listening: int) -> None:
    """The probe sees a hole where the unit has one: each line taken out opens what it closed."""
    service = appliance.unit["Service"]
    service["PrivateNetwork"] = ["no"]
    service["RestrictAddressFamilies"] = ["AF_UNIX AF_INET"]
    service["ReadWritePaths"].append(shlex.quote(str(appliance.music)))
    probe = [sys.executable, str(Path(__file__).with_name("probe.py")), str(listening), str(appliance.state)]
    done = appliance.run([*probe, str(appliance.music), str(appliance.state / "bundles")])
    assert done.returncode == 0, done.stderr
    inside = json.loads(done.stdout)
    assert inside["tcp connection"] == "yes"
    assert inside[f"write {appliance.music}"] == "yes"
    assert inside["netlink socket"] != "yes"
    assert inside[f"write {appliance.state / 'bundles'}"] != "yes"


def test_a_directive_that_is_not_translated_is_an_error(appliance: Appliance) -> None:
    appliance.unit["Service"]["ProtectEverything"] = ["yes"]
    with pytest.raises(ValueError, match="ProtectEverything"):
        appliance.run(["true"])


@needs_program
def test_the_watchdog_is_told(appliance: Appliance, tmp_path: Path) -> None:
    for name in ("one.wav", "two.wav"):
        tone.write(appliance.music / name)
    address = appliance.state / "notify"  # a path that is visible in there, as /run/systemd/notify is on a device
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.settimeout(5)
        done = appliance.run(appliance.service, {"NOTIFY_SOCKET": str(address)})
        assert done.returncode == 0, done.stderr
        messages = []
        channel.setblocking(False)
        while True:
            try:
                messages.append(channel.recv(4096).decode())
            except BlockingIOError:
                break
    assert messages[0].startswith("READY=1")
    assert sum("WATCHDOG=1" in message.split("\n") for message in messages) >= 2
