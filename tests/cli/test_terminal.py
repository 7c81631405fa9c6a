"""What a user at a terminal sees: the progress bar, help, the summary, lists of tracks, completion, plug-ins."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer

import edge_reclass
from command import bundle, music, run, shell, songs
from edge_reclass import host
from edge_reclass.cli import commands as cli
from edge_reclass.cli.summary import Summary, counted
from edge_reclass.installing import install_command
from edge_reclass.run.sources import TrackSearch
from edge_reclass.verdict import DamageSeen, Score, Verdict

__all__ = ["bundle", "music", "songs"]

ROOT = Path(edge_reclass.__file__).parents[2]


def on_a_terminal(command: str, **variables: str) -> tuple[int, str]:
    """Exit code, and all that a terminal received, of a bash command with EDGE for ``edge-reclass classify``."""
    controller, terminal = pty.openpty()
    received: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(controller, 65_536)
            except OSError:  # the last one has closed it
                return
            if not part:
                return
            received.append(part)

    reader = threading.Thread(target=read, daemon=True)
    process = subprocess.Popen(
        ["bash", "-c", command.replace("EDGE", f"{sys.executable} -m edge_reclass classify")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | variables,
    )
    os.close(terminal)
    reader.start()
    code = process.wait(120)
    reader.join(30)
    os.close(controller)
    return code, b"".join(received).decode("utf-8", "replace")


def screen(text: str) -> list[str]:
    """The lines that stay on a terminal: carriage returns go to the start of a line, ESC[2K empties it."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            part = part.rsplit("\x1b[2K", 1)
            # A shorter text that is written over a longer one leaves the rest of it.
            shown = part[1] if len(part) == 2 else part[0] + shown[len(part[0]) :]
        lines.append(shown)
    return lines


@pytest.mark.parametrize("where", ["", "| cat", "| tee copy", "| grep Alpha", "-o >(cat)", "-o /dev/stdout | cat"])
def test_verdicts_and_the_bar_never_share_a_line(bundle: Path, songs: Path, tmp_path: Path, where: str) -> None:
    code, text = on_a_terminal(f"cd {tmp_path}; EDGE {songs} --bundle {bundle} {where}; sleep 0.2")
    lines = screen(text)
    assert code == 0, text
    verdicts = [line for line in lines if line.endswith((".wav", ".flac"))]
    assert [line.split()[0] for line in verdicts] == ["Alpha", "Alpha"], text
    for line in lines:
        assert "classify ━" not in line and "╌" not in line, text
    if where:
        assert "╌" not in text, "the reader of a pipe may write to this terminal"
    else:
        assert "╌ 0/2" in text and "1/2" in text
        # Every verdict, whole, begins at the start of a line that was emptied.
        assert re.search(r"\r\x1b\[2KAlpha .*b\.flac\r\n", text), text


@pytest.mark.parametrize("where", ["-o out", "> out", "> /dev/null"])
def test_the_bar_is_shown_where_verdicts_go_elsewhere(bundle: Path, songs: Path, tmp_path: Path, where: str) -> None:
    code, text = on_a_terminal(f"cd {tmp_path}; EDGE {songs} --bundle {bundle} {where}")
    assert code == 0
    assert "╌ 0/2" in text
    assert not [line for line in screen(text) if "classify" in line], "it is erased at the end"
    if "out" in where:
        assert "\x1b" not in (tmp_path / "out").read_text()
    assert "╌" not in on_a_terminal(f"EDGE {songs} --bundle {bundle} > /dev/null", TERM="dumb")[1]


def test_csv_on_a_terminal_does_not_rewrite_it(bundle: Path, songs: Path) -> None:
    (songs / "a.wav").rename(songs / "a\x1b[2J\nb.wav")
    code, text = on_a_terminal(f"EDGE {songs} --bundle {bundle} -f csv")
    assert code == 0
    assert "\x1b[2J" not in text and "\\x1b[2J" in text


def test_the_device_line_names_no_driver_that_nobody_expects(
    bundle: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
):
    from edge_reclass.errors import DeviceError
    from edge_reclass.host import gpu as device

    def none() -> None:
        raise DeviceError("no NVIDIA GPU: the CUDA driver cannot be loaded (libcuda.so.1: cannot open)")

    monkeypatch.setattr(host, "probe_gpu", none)
    monkeypatch.setattr(device, "has_nvidia_gpu", lambda: False)
    assert run("classify", songs, "--bundle", bundle).stderr.splitlines()[0] == "device: cpu"
    monkeypatch.setattr(device, "has_nvidia_gpu", lambda: True)
    said = run("classify", songs, "--bundle", bundle).stderr.splitlines()[0]
    assert said.startswith("device: cpu; no NVIDIA GPU: the CUDA driver cannot be loaded")


def test_nvidia_hardware_is_seen_without_a_driver(tmp_path: Path) -> None:
    from edge_reclass.host.gpu import has_nvidia_gpu

    assert not has_nvidia_gpu(tmp_path)
    card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x0c0330\n")  # a USB controller of NVIDIA's
    assert not has_nvidia_gpu(tmp_path)
    (card / "class").write_text("0x030000\n")
    assert has_nvidia_gpu(tmp_path)
    (tmp_path / "jetson/etc").mkdir(parents=True)
    (tmp_path / "jetson/etc/nv_tegra_release").touch()
    assert has_nvidia_gpu(tmp_path / "jetson")


def summary_of(*verdicts: Verdict, found: TrackSearch | None = None) -> list[str]:
    summary = Summary()
    for verdict in verdicts:
        summary.add(verdict)
    lines = list(summary.lines(TrackSearch([]) if found is None else found))
    return [re.sub(r"in \d+\.\d s", "in 0.0 s", line) for line in lines]


def ok(genre: str) -> Verdict:
    return Verdict("a.wav", "ok", "b", "p", genre, 0.9, "fma", "r", "accepted", (Score(genre, 0.9),))


def test_the_summary_ends_with_genres_and_counts() -> None:
    unsure = Verdict("c.wav", "unsure", "b", "p", None, 0.2, "last", "r", "low_confidence", (Score("Pop", 0.2),))
    bad = replace(ok("Rock"), damage=DamageSeen(1, 100, 0.01))
    lines = summary_of(ok("Jazz"), ok("Rock"), bad, Verdict("b.wav", "silent", "b", "p"), unsure)
    assert lines == [
        "5 tracks in 0.0 s: 3 ok, 1 silent, 1 unsure",
        "1 track damaged, classified by what can be decoded",
        "decided by: fma 3 (75%), last 1 (25%)",
        "genres: Rock 2, Jazz 1",
    ]


def test_the_summary_counts_in_good_english() -> None:
    assert summary_of(ok("Rock"))[0] == "1 track in 0.0 s: 1 ok"
    assert [counted(n, "track") for n in (0, 1, 2)] == ["0 tracks", "1 track", "2 tracks"]
    for hidden, other, text in (
        (0, 0, ""),
        (1, 0, "; skipped 1 hidden file"),
        (0, 2, "; skipped 2 non-audio files"),
        (3, 1, "; skipped 3 hidden and 1 non-audio file"),
    ):
        found = TrackSearch([])
        found.skipped_hidden, found.skipped_other = hidden, other
        assert summary_of(ok("Rock"), found=found)[0] == f"1 track in 0.0 s: 1 ok{text}"


def test_the_summary_says_what_needs_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    bad = [Verdict(name, "unsupported", "b", "p", error="needs PyAV") for name in ("a.m4a", "b.M4A", "c.wma", "d.txt")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert f"2 .m4a, 1 .wma need the extra [codecs]: {install_command('codecs')}" in summary_of(*bad)
    assert f"1 .wma needs the extra [codecs]: {install_command('codecs')}" in summary_of(bad[2])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert not [line for line in summary_of(*bad) if "codecs" in line]


def test_lists_of_tracks(bundle: Path, songs: Path, tmp_path: Path) -> None:
    odd = songs / os.fsdecode(b"caf\xe9\nx.wav")
    (songs / "a.wav").rename(odd)
    lines, nulls = tmp_path / "lines", tmp_path / "nulls"
    lines.write_bytes(b"\xef\xbb\xbf\r\n\n" + os.fsencode(songs / "b.flac") + b"\r\n" + os.fsencode(songs) + b"\n")
    nulls.write_bytes(os.fsencode(odd) + b"\0\0" + os.fsencode(songs / "b.flac") + b"\0")
    options = f"--bundle {bundle} -f jsonl"

    def paths(command: str) -> list[bytes]:
        done = shell(command)
        assert done.returncode == 0, done.stderr
        return [os.fsencode(json.loads(line)["path"]) for line in done.stdout.splitlines()]

    both = [os.fsencode(songs / "b.flac"), os.fsencode(odd)]
    assert paths(f"EDGE --files-from {lines} {options}") == both
    assert paths(f"EDGE --files-from - {options} < {lines}") == both
    assert paths(f"EDGE --files-from {nulls} --null {options}") == both[::-1]
    assert paths(f"find {songs} -name '*.flac' -print0 | EDGE -0 --files-from - {options}") == both[:1]
    assert paths(f"EDGE {songs}/b.flac --files-from {nulls} -0 {options}") == both, "combined; no track twice"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a PATH, or --files-from FILE"),
        (["--null", "x.wav"], "--null goes with --files-from"),
        (["--files-from", "{here}/none"], "cannot be read (No such file or directory)"),
        (["--files-from", "{here}"], "cannot be read (Is a directory)"),
        (["--files-from", "{here}/nulls"], "it has NUL bytes; add --null"),
        (["--files-from", "{here}/empty"], "no audio found in the list {here}/empty"),
    ],
)
def test_lists_that_cannot_be_meant(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "nulls").write_bytes(b"a.wav\0b.wav\0")
    (tmp_path / "empty").write_bytes(b"\n\n")
    done = run("classify", *(argument.format(here=tmp_path) for argument in arguments))
    assert (done.returncode, message.format(here=tmp_path) in done.stderr) == (2, True), done.stderr


def all_help() -> dict[str, str]:
    texts = {"": run("--help").stdout}
    waiting = re.findall(r"^  ([a-z-]+)  ", texts[""].partition("Commands:")[2], re.MULTILINE)
    while waiting:
        name = waiting.pop()
        texts[name] = run(*name.split(), "--help").stdout
        waiting += [
            f"{name} {inner}" for inner in re.findall(r"^  ([a-z0-9-]+)  ", texts[name].partition("Commands:")[2], re.M)
        ]
    return texts


def test_help_and_errors_are_in_words() -> None:
    texts = all_help()
    assert {"classify", "inspect", "doctor"} <= set(texts)
    for name, text in texts.items():
        assert not re.search(r"<[a-z]|list\[|\{|None", text), f"{name}: {text}"
    for value, message in (("0", "0"), ("x", "'x'"), ("1.5", "'1.5'")):
        done = run("classify", "--jobs", value, "x.wav")
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert "Input should" not in done.stderr and "pydantic" not in done.stderr
    for value in ("-0.1", "1.1", "nan"):
        done = run("classify", "--min-confidence", value, "x.wav")
        assert (done.returncode, "expected a number from 0 to 1" in done.stderr) == (2, True)


def edge(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, under the name that it is installed as."""
    program = "import sys; sys.argv[0] = 'edge-reclass'; from edge_reclass.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=120, check=False)


def test_completion(tmp_path: Path) -> None:
    script = edge(_EDGE_RECLASS_COMPLETE="source_bash")
    assert (script.returncode, script.stderr) == (0, "")
    assert "complete -o default -F _edge_reclass_completion edge-reclass" in script.stdout
    words = {"COMP_WORDS": "edge-reclass cla", "COMP_CWORD": "1", "_EDGE_RECLASS_COMPLETE": "complete_bash"}
    assert edge(**words).stdout.split() == ["classify"]
    words["COMP_WORDS"] = "edge-reclass classify --files"
    assert edge(**words | {"COMP_CWORD": "2"}).stdout.split() == ["--files-from"]
    for option in ("--install-completion", "--show-completion"):
        assert option in run("--help").stdout
    done = subprocess.run(["bash", "-n"], input=script.stdout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m(bundle: Path, songs: Path) -> None:
    command = [sys.executable, "-m", "edge_reclass", "classify", str(songs), "--bundle", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.count("Alpha")) == (0, 2), done.stderr


BROKEN = {
    "absent": "no_such_module_at_all:app",
    "raising": "broken_plugin:app",
    "nothing": "broken_plugin_2:missing",
    "number": "broken_plugin_2:number",
    "untyped": "broken_plugin_2:untyped",
    "exiting": "broken_plugin_3:app",
}


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a package whose commands are broken in every way, and two good ones."""
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    entries = BROKEN | {"good": "good_plugin:app", "simple": "good_plugin:simple", "classify": "good_plugin:simple"}
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{cli.ENTRY_POINTS}]", *lines]) + "\n")
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('out of\\x1b[2J luck')\n")
    (tmp_path / "broken_plugin_2.py").write_text(
        "class Odd: pass\nnumber = 7\ndef untyped(a: Odd, b: 'list[list[Odd]]') -> None: pass\n"
    )
    (tmp_path / "broken_plugin_3.py").write_text("import sys; sys.exit('I leave')\n")
    (tmp_path / "good_plugin.py").write_text(
        "import typer\napp = typer.Typer(help='Two good commands.')\n@app.command()\ndef one() -> None: print('one!')\n"
        "@app.command()\ndef two(n: int = 1) -> None: print('two!')\n"
        "def simple() -> None:\n    'A simple one.'\n    print('simple!')\n"
    )
    return tmp_path


def test_a_broken_plug_in_takes_nothing_down(plugins: Path) -> None:
    path = os.pathsep.join([str(plugins), os.environ.get("PYTHONPATH", "")])
    listing = edge("--help", PYTHONPATH=path, COLUMNS="200")
    assert (listing.returncode, listing.stderr) == (0, "")
    for name in BROKEN:
        assert re.search(rf"^  {name} +cannot be loaded: \w+", listing.stdout, re.MULTILINE), (name, listing.stdout)
    assert "\x1b" not in listing.stdout
    assert re.search("^  good +Two good commands.$", listing.stdout, re.MULTILINE)
    assert re.search("^  classify +Classify audio files", listing.stdout, re.MULTILINE), "our own come first"
    assert edge("--version", PYTHONPATH=path).returncode == 0
    assert edge("inspect", PYTHONPATH=path).returncode == 0
    assert edge("good", "two", "--n", "3", PYTHONPATH=path).stdout == "two!\n"
    assert edge("simple", PYTHONPATH=path).stdout == "simple!\n"
    for name, value in BROKEN.items():
        for arguments in ([], ["--some", "thing"]):
            done = edge(name, *arguments, PYTHONPATH=path)
            assert done.returncode == 1, (name, done)
            assert f"error: {name}: the plug-in {value} of broken cannot be loaded (" in done.stderr
            assert "Traceback" not in done.stderr
    assert edge("unheard-of", PYTHONPATH=path).returncode == 2


def test_only_the_plug_in_that_is_called_is_imported(plugins: Path, tmp_path: Path) -> None:
    program = """
import sys
sys.argv[0] = "edge-reclass"
from edge_reclass.cli import main
try:
    main()
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
    path = os.pathsep.join([str(plugins), os.environ.get("PYTHONPATH", "")])
    for arguments, own in ((["--version"], ""), (["classify", "--help"], ""), (["simple"], "good_plugin")):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=120, check=True
        )
        modules = set(done.stderr.split())
        assert own in modules or not own
        heavy = {"numpy", "onnxruntime", "edge_reclass_export", "edge_reclass_bench", "good_plugin", "yaml", "msgspec"}
        assert not modules & heavy - {own}, (arguments, modules & heavy)


def test_the_commands_of_this_package_are_found() -> None:
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not a checkout")
    found = {entry.name: entry for entry in cli.entry_points(group=cli.ENTRY_POINTS)}
    assert {"export", "build", "verify", "bench"} <= set(found)
    assert all(isinstance(entry, EntryPoint) for entry in found.values())
    assert isinstance(cli.app, typer.Typer)
