"""An appliance's life, in a Debian 12 with systemd and without a network: installed, nights, mishaps, updates.

EDGE_RECLASS_CONTAINER=1 runs it, as root. EDGE_RECLASS_DEB names the package (jetson/make_wheelhouse.sh debian12-amd64
--deb makes it). The tests are steps of one life and run in their order. ``-s`` shows the results before and after each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import synth
from container import box as boxes
from container.box import Box

_WHY = boxes.unavailable() or (None if os.environ.get("EDGE_RECLASS_DEB") else "EDGE_RECLASS_DEB names no package")
pytestmark = pytest.mark.skipif(_WHY is not None, reason=f"no container: {_WHY}")

MUSIC, USB = "/srv/music", "/srv/music/usb"
STATE = "/var/lib/edge-reclass/library/library.state"
SERVICE = "edge-reclass.service"
RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
_MISBEHAVE = """

import os as _os, time as _time
_opened = Decoder.open
def _misbehave(self, path, *arguments):
    name = _os.path.basename(_os.fspath(path))
    if name.startswith("hang"):
        _time.sleep(3600)
    if name.startswith("crash"):
        _os.abort()
    return _opened(self, path, *arguments)
Decoder.open = _misbehave
"""

Results = dict[str, tuple[str, str | None, str]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("box"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short tracks of different sounds."""
    folder = tmp_path_factory.mktemp("songs")
    for number in range(12):
        synth.write(folder / f"{number:02}.flac", synth.music(3.0 + number / 10, 22_050), 22_050)
    return folder


def results(box: Box) -> Results:
    """Each track below the music: its status, genre, and when it was classified."""
    if box.run(f"test -e {STATE}", check=False).returncode:
        return {}
    lines = box.run(f"edge-reclass library export {STATE} --format jsonl").stdout.splitlines()
    found = {}
    for verdict in map(json.loads, lines):
        found[os.path.relpath(verdict["path"], MUSIC)] = (verdict["status"], verdict.get("genre"), verdict.get("at"))
    return found


def night(box: Box) -> str:
    """Start the service and wait for its end; how it ended."""
    box.run(f"systemctl reset-failed {SERVICE}; systemctl start --no-block {SERVICE}", check=False)
    box.wait(f"systemctl show {SERVICE} -p SubState --value | grep -E '^(dead|failed|auto-restart)$'", 600)
    said = box.run(f"systemctl show {SERVICE} -p Result,ExecMainStatus").stdout.split()
    box.run(f"systemctl stop {SERVICE}", check=False)
    print(box.run(f"journalctl -u {SERVICE} --no-pager -o cat -n 12").stdout)
    return " ".join(said)


def said(what: str, before: Results, after: Results, *more: str) -> None:
    def counted(found: Results) -> str:
        return f"{len(found)} tracks {dict(Counter(status for status, _, _ in found.values()))}"

    again = sum(name in after and after[name] != verdict for name, verdict in before.items())
    print(f"\n{what}: before {counted(before)}; after {counted(after)}; {again} classified again; {'; '.join(more)}")


def kept(before: Results, after: Results) -> bool:
    """Whether every verdict is still there as it was."""
    return all(after.get(name) == verdict for name, verdict in before.items())


def put(box: Box, songs: Path, *targets: str) -> None:
    for number, target in enumerate(targets):
        box.copy(songs / f"{number % 12:02}.flac", f"{MUSIC}/{target}")


def test_installed_from_the_package(box: Box, songs: Path) -> None:
    put(box, songs, "album/a.flac", "album/b.flac", "c.flac")
    box.copy(Path(os.environ["EDGE_RECLASS_DEB"]), "/root/edge-reclass.deb")
    box.run("dpkg -i /root/edge-reclass.deb")
    # The tests of a checkout try its program, not the package's.
    box.copy(RUNTIME / "edge_reclass_appliance", "/usr/lib/edge-reclass/edge_reclass_appliance")
    done = box.run(f"edge-reclass-appliance provision --yes --music {MUSIC} --calendar '*-*-* 02:30:00'")
    print(done.stderr)
    again = box.run("edge-reclass-appliance provision --yes")
    assert "nothing was changed" in again.stderr, again.stderr
    site = box.run("/opt/edge-reclass/venv/bin/python -c 'import edge_reclass; print(edge_reclass.__path__[0])'").stdout
    for package in ("edge_reclass", "edge_reclass_appliance", "edge_reclass_doctor", "edge_reclass_service"):
        box.copy(RUNTIME / package, f"{Path(site.strip()).parent}/{package}")


def test_the_first_night_and_the_second(box: Box, songs: Path) -> None:
    nothing = results(box)
    ended = night(box)
    first = results(box)
    said("first night", nothing, first, ended)
    assert (len(nothing), len(first), ended) == (0, 3, "Result=success ExecMainStatus=0")
    put(box, songs, "new/d.flac", "new/e.flac")
    ended = night(box)
    second = results(box)
    said("second night, 2 new tracks", first, second, ended)
    assert kept(first, second) and len(second) == 5


def test_the_power_goes_in_a_run(box: Box, songs: Path) -> None:
    before = results(box)
    put(box, songs, *(f"many/{number:02}.flac" for number in range(40)))
    box.run(f"systemctl start --no-block {SERVICE}")
    box.wait(f"test $(edge-reclass library list {STATE} --format jsonl | wc -l) -gt {len(before) + 3}", 300)
    box.kill()
    box.start()
    cut = results(box)
    said("the power goes in a run", before, cut)
    assert kept(before, cut) and len(before) < len(cut) <= 45
    ended = night(box)
    after = results(box)
    said("the next run", cut, after, ended)
    assert kept({name: one for name, one in cut.items() if one[0]}, after) and len(after) == 45


def test_a_disk_that_is_not_mounted(box: Box, songs: Path) -> None:
    disk = box.disk("usb", 40)
    box.run(f"mkdir -p {USB} && mount {disk} {USB} && chmod 755 {USB}")
    for name in ("x.flac", "y.flac"):
        box.copy(songs / "03.flac", f"root/{name}")
        box.run(f"cp /root/{name} {USB}/")
    night(box)
    before = results(box)
    assert "usb/x.flac" in before
    box.run(f"umount {USB}")
    ended = night(box)
    after = results(box)
    said("a disk is not mounted", before, after, ended)
    assert kept(before, after)
    assert "not mounted?" in box.run(f"journalctl -u {SERVICE} --no-pager -o cat -n 12").stdout
    box.run(f"mount {disk} {USB}")
    ended = night(box)
    said("mounted again", after, results(box), ended)
    assert results(box) == before


def test_a_folder_that_cannot_be_read(box: Box) -> None:
    before = results(box)
    box.run(f"chmod 700 {MUSIC}/album")
    ended = night(box)
    after = results(box)
    said("a folder cannot be read", before, after, ended)
    assert kept(before, after)
    page = box.run("edge-reclass doctor", check=False).stdout
    print(page)
    (fix,) = re.findall(r"→ (sudo setfacl .*?)(?:   \(|$)", page, re.MULTILINE)
    box.run(fix.removeprefix("sudo "))
    assert "✗ music" not in box.run("edge-reclass doctor", check=False).stdout
    ended = night(box)
    assert ended == "Result=success ExecMainStatus=0" and kept(before, results(box))


def test_tracks_that_hang_and_crash(box: Box, songs: Path) -> None:
    before = results(box)
    decode, limits = (
        box.run(f"echo /opt/edge-reclass/venv/lib/python3*/site-packages/edge_reclass/{name}").stdout.strip()
        for name in ("audio/decode.py", "run/workers/process.py")
    )
    box.run(f"cp {decode} /root/decode.py; sed -i 's/seconds: float = 30.0/seconds: float = 10.0/' {limits}")
    box.run(f"cat >> {decode} <<'END'{_MISBEHAVE}END")
    put(box, songs, "bad/crash.flac", "bad/hang.flac", "bad/good.flac")
    ended = night(box)
    after = results(box)
    said(
        "tracks hang and crash", before, after, ended, str({n: v[0] for n, v in after.items() if n.startswith("bad/")})
    )
    assert kept(before, after)
    assert after["bad/crash.flac"][0] == "crashed" and after["bad/hang.flac"][0] == "timeout"
    assert after["bad/good.flac"][0] in ("ok", "unsure") and ended.startswith("Result=success")
    box.run(f"cp /root/decode.py {decode}; rm -r {MUSIC}/bad")


def test_the_disk_of_the_state_is_full(box: Box, songs: Path) -> None:
    disk = box.disk("small", 64)
    box.run(f"mount {disk} /mnt && cp -a /var/lib/edge-reclass/. /mnt/ && umount /mnt")
    box.run(f"mount {disk} /var/lib/edge-reclass")
    try:
        box.run("chown root: /var/lib/edge-reclass; chmod 755 /var/lib/edge-reclass")
        night(box)  # notices what the test before has removed, whose verdicts would move to tracks of the same content
        before = {name: one for name, one in results(box).items() if not name.startswith("bad/")}
        put(box, songs, *(f"more/{number:02}.flac" for number in range(30)))
        box.run("cat /dev/zero > /var/lib/edge-reclass/filler", check=False)
        ended = night(box)
        journal = box.run(f"journalctl -u {SERVICE} --no-pager -n 20 -o cat").stdout
        full = results(box)
        said("the disk is full", before, full, ended, *[line for line in journal.splitlines() if "full" in line][-1:])
        assert kept(before, full) and "full" in journal
        box.run("rm /var/lib/edge-reclass/filler")
        ended = night(box)
        after = results(box)
        said("with space again", full, after, ended)
        assert kept(before, after) and ended.startswith("Result=success")
        assert {f"more/{number:02}.flac" for number in range(30)} <= set(after)
    finally:
        box.run("umount --lazy /var/lib/edge-reclass")


@pytest.mark.parametrize("days", [400, -400])
def test_the_clock_jumps(box: Box, songs: Path, days: int, tmp_path: Path) -> None:
    """For our processes only: as a board without a battery wakes up in another year."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, for a clock that jumps")
    clock = tmp_path / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", clock, source, "-ldl"], check=True)
    box.copy(clock, "/usr/lib/clock.so")
    before = results(box)
    put(box, songs, f"clock{days}/a.flac")
    lines = f"[Service]\nEnvironment=LD_PRELOAD=/usr/lib/clock.so JUMP={days * 86_400}\n"
    box.run(f"mkdir -p /etc/systemd/system/{SERVICE}.d; printf '{lines}' > /etc/systemd/system/{SERVICE}.d/clock.conf")
    box.run("systemctl daemon-reload")
    ended = night(box)
    after = results(box)
    said(f"the clock jumps by {days} days", before, after, ended, after[f"clock{days}/a.flac"][2])
    assert kept(before, after) and ended.startswith("Result=success")
    box.run(f"rm -r /etc/systemd/system/{SERVICE}.d; systemctl daemon-reload")
    night(box)
    assert kept(after, results(box))


def release(folder: Path, name: str, sequence: int, key: Path | None, *, broken: bool = False) -> Path:
    """A bundle like the starter, with another name, as a release; gives the archive."""
    bundle = folder / "bundle"
    shutil.copytree(RUNTIME / "edge_reclass/bundles/starter", bundle)
    manifest = bundle / "bundle.yaml"
    text = re.sub(r"^name: .*$", f"name: {name}", manifest.read_text(), flags=re.MULTILINE)
    if broken:
        import hashlib

        head = next(bundle.glob("heads/*.onnx"))
        old = hashlib.sha256(head.read_bytes()).hexdigest()
        size = head.stat().st_size
        head.write_bytes(b"this is no onnx file".ljust(size))
        text = text.replace(old, hashlib.sha256(head.read_bytes()).hexdigest())
    manifest.write_text(text)
    out = folder / "release"
    out.mkdir()
    subprocess.run(["tar", "-C", folder, "-cf", out / f"{name}.tar", "bundle"], check=True)
    if key is not None:
        make = [sys.executable, "-m", "edge_reclass_appliance", "make-release", out, "--version", str(sequence)]
        subprocess.run(
            [*make, "--name", "bundle", "--sequence", str(sequence), "--sign", key],
            check=True,
            env={**os.environ, "PYTHONPATH": str(RUNTIME)},
            stdin=subprocess.DEVNULL,
        )
    return out / f"{name}.tar"


def test_bundles_good_broken_unsigned_and_older(box: Box, tmp_path: Path) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("minisign is not installed")
    key = tmp_path / "secret.key"
    subprocess.run(["minisign", "-G", "-W", "-f", "-s", key, "-p", tmp_path / "public.pub"], check=True)
    box.copy(tmp_path / "public.pub", "/root/public.pub")
    verdicts = results(box)
    current = "readlink /var/lib/edge-reclass/bundles/current"
    first = box.run(current).stdout.strip()

    def install(name: str, sequence: int, signed: bool, *, broken: bool = False) -> subprocess.CompletedProcess[str]:
        (tmp_path / name).mkdir()
        archive = release(tmp_path / name, name, sequence, key if signed else None, broken=broken)
        box.copy(archive.parent, f"/root/{name}")
        done = box.run(
            f"edge-reclass-appliance bundle install /root/{name}/{name}.tar --key /root/public.pub", check=False
        )
        print(f"\n{name}: exit code {done.returncode}\n{done.stderr}in use: {box.run(current).stdout}")
        return done

    assert install("good", 20, True).returncode == 0
    good = box.run(current).stdout.strip()
    assert good.startswith("good-")
    assert install("broken", 30, True, broken=True).returncode == 4
    assert install("unsigned", 40, False).returncode == 6
    assert install("older", 10, True).returncode == 6
    assert box.run(current).stdout.strip() == good
    assert results(box) == verdicts
    print(box.run("edge-reclass-appliance bundle rollback").stderr)
    assert box.run(current).stdout.strip() == first
    ended = night(box)
    said("after the rollback", verdicts, results(box), ended)
    assert kept(verdicts, results(box))


def test_device_nodes_as_on_a_jetson(box: Box) -> None:
    """What is tried is tried with the unit's groups; a node that they do not open is named."""
    for group in ("video", "render"):
        box.run(f"getent group {group} || groupadd --system {group}")
    box.node("/dev/nvmap", "660", "root:video")
    box.node("/dev/nvhost-ctrl-gpu", "660", "root:video")
    box.node("/dev/dri/renderD128", "660", "root:render")
    program = (
        "import dataclasses, sys; from pathlib import Path\n"
        "from edge_reclass_appliance import limits, machine, places, releases, trial, units\n"
        "root = Path('/'); jetson = releases.release_of('36.4.3')\n"
        "here = dataclasses.replace(machine.detect(root), release=jetson, tensorrt='10.3.0')\n"
        "plan = units.Plan(root, places.read_settings(root), here, limits.limits(here))\n"
        "tried = trial.Trial(plan)\n"
        "print(tried.how)\n"
        "nodes = ('/dev/nvmap', '/dev/nvhost-ctrl-gpu', '/dev/dri/renderD128')\n"
        'look = \'import sys; [open(one, "r+b").close() for one in sys.argv[1:]]; print("opened")\'\n'
        "done = tried.run([sys.executable, '-c', look, *nodes]); print(done.returncode, done.stdout, done.stderr)\n"
    )
    (box.root / "root/try.py").write_text(program)
    command = "/opt/edge-reclass/venv/bin/python /root/try.py"
    opened = box.run(command).stdout
    print(opened)
    assert opened.startswith("unit\n0 opened"), opened
    alone = box.run("cat /dev/nvmap", user="edge-reclass", check=False)
    assert alone.returncode != 0 and "Permission denied" in alone.stderr, "the user alone may not"
    box.node("/dev/nvmap", "660", "root:4242")  # a group that this machine does not know
    missing = box.run(command).stdout
    print(missing)
    assert "Permission denied: '/dev/nvmap'" in missing


def test_doctor_of_three_faults(box: Box, songs: Path) -> None:
    """Each command that doctor prints and that changes nothing outside of the box is run there."""
    put(box, songs, "last/a.flac")
    box.run(f"head -c 3000 /dev/urandom >> {MUSIC}/last/a.flac")  # else it has the verdict of a track like it
    box.run(f"chmod 700 {MUSIC}/many")
    bundle = "/var/lib/edge-reclass/bundles/current"
    box.run(f"printf x >> $(ls {bundle}/heads/*.onnx | head -1)")
    night(box)
    done = box.run("edge-reclass doctor", check=False)
    print(done.stdout)
    assert done.returncode == 4
    for area in ("service", "music", "bundle"):
        assert f"✗ {area}" in done.stdout, area
    commands = [line.split("→ ", 1)[1].split("   (")[0] for line in done.stdout.splitlines() if "→ " in line]
    assert len(commands) >= 3
    # There is no sudo in the box: all of it runs as root.
    for command in sorted(commands, key=lambda one: "rollback" not in one):
        ran = box.run(command.replace("sudo ", ""), check=False)
        print(f"$ {command}\n{ran.returncode} {(ran.stdout + ran.stderr)[-400:]}")
        assert ran.returncode == 0, command
    ended = night(box)
    page = box.run("edge-reclass doctor", check=False)
    print(ended, page.stdout, sep="\n")
    assert page.returncode == 0 and "✗" not in page.stdout


def test_the_resident_service(box: Box, songs: Path) -> None:
    """It starts, takes a new track, classifies nothing again after a restart, and lets a disk be unmounted."""
    done = box.run("edge-reclass-appliance provision --yes --when always")
    print(done.stderr)
    socket = "/run/edge-reclass/edge-reclass.sock"
    assert box.run(f"systemctl is-active {SERVICE}").stdout.strip() == "active"
    assert box.run(f"stat -c '%A %U:%G' {socket}").stdout.strip() == "srw-rw---- edge-reclass:edge-reclass"
    disk = box.disk("resident", 40)
    box.run(f"mkdir -p {MUSIC}/resident && mount {disk} {MUSIC}/resident && chmod 755 {MUSIC}/resident")
    box.copy(songs / "05.flac", "root/whole.flac")
    # Behind a tag, so that the decoder reads it through callbacks.
    tag = r"ID3\3\0\0\0\0\0\012\0\0\0\0\0\0\0\0\0\0"
    box.run(f"{{ printf '{tag}'; cat /root/whole.flac; }} > {MUSIC}/resident/tagged.flac")
    box.wait(f"edge-reclass library show {STATE} {MUSIC}/resident/tagged.flac", 300)
    before = results(box)
    assert before["resident/tagged.flac"][0] in ("ok", "unsure")
    box.run("useradd --groups edge-reclass listener")
    asked = box.run(f"edge-reclass classify --remote {socket} {MUSIC}/c.flac", user="listener")
    print(asked.stdout)
    box.run(f"umount {MUSIC}/resident")
    box.run(f"systemctl restart {SERVICE}")
    assert kept(before, results(box))
    box.run(f"systemctl stop {SERVICE}")
    assert box.run(f"systemctl show {SERVICE} -p Result --value").stdout.strip() == "success"
