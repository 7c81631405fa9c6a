"""Where verdicts are written: never over an input, in a file that survives, on any stream."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bundles
from command import bundle, music, run, shell, songs
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.run.formatters import FORMATS, explain, formatter
from edge_reclass.run.output import open_output
from edge_reclass.run.text import printable
from edge_reclass.verdict import DamageSeen, ExcerptSeen, Score, StageReport, Verdict, WindowsSeen

__all__ = ["bundle", "music", "songs"]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "{songs}/a.wav", "{songs}/b.flac"], "an audio file by its name"),  # classify -o *.wav
        (["{songs}", "-o", "{songs}/a.wav"], "by its name"),
        (["{songs}/a.wav", "-o", "{here}/new.MP3"], "by its name"),
        (["{songs}/a.wav", "-o", "{here}/link"], "by its name"),
        (["{songs}/b.flac", "-o", "{here}/dangling"], "by its name"),
        (["{songs}/b.flac", "-o", "{here}/song"], "by its content"),
        (["{songs}/b.flac", "-o", "{here}/out"], "by its content"),  # out.partial is a song
        (["{songs}", "-o", "{here}/hard"], "an input"),  # no longer audio, but listed
        (["{songs}", "-o", "{here}/other/../hard"], "an input"),
        (["{here}/notes", "-o", "{here}/notes"], "an input"),
        (["{here}/notes", "-o", "{here}/to-notes"], "an input"),
        (["--files-from", "{here}/list", "-o", "{here}/list"], "an input"),
        (["--files-from", "{here}/list", "-o", "{here}/x"], "an input"),  # x.partial is the list
        (["{songs}", "-o", "{bundle}/out.jsonl"], "inside the bundle"),
    ],
)
def test_an_output_never_touches_an_input(songs: Path, bundle: Path, tmp_path: Path, arguments: list[str], said: str):
    here = tmp_path / "here"
    (here / "other").mkdir(parents=True)
    (here / "link").symlink_to(songs / "a.wav")
    (here / "dangling").symlink_to(here / "not yet.flac")
    shutil.copy(songs / "a.wav", here / "song")
    shutil.copy(songs / "b.flac", here / "out.partial")
    (songs / "spoiled.mp3").write_bytes(b"no longer audio")
    os.link(songs / "spoiled.mp3", here / "hard")
    (here / "notes").write_text("notes")
    (here / "to-notes").symlink_to("notes")
    (here / "list").write_text(f"{songs}\n")
    os.link(here / "list", here / "x.partial")
    before = contents(tmp_path)
    filled = [argument.format(songs=songs, here=here, bundle=bundle) for argument in arguments]
    done = run("classify", *filled, "--bundle", bundle, "-f", "jsonl")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert "device:" not in done.stderr, "it is said before the bundle is opened"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["run", "peers"])
def test_a_record_of_bench_never_replaces_a_track(songs: Path, bundle: Path, command: str) -> None:
    before = contents(songs)
    for track, output in (("a.wav", "b.flac"), ("a.wav", "a.wav")):
        done = run("bench", command, songs / track, "-o", songs / output, "--bundle", bundle)
        assert (done.returncode, "would be overwritten" in done.stderr) == (2, True), done.stderr
    assert contents(songs) == before


def test_appending_standard_output_to_a_track_is_refused(songs: Path, bundle: Path) -> None:
    before = contents(songs)
    done = shell(f"EDGE {songs} --bundle {bundle} >> {songs}/a.wav")
    assert done.returncode == 2, done.stderr
    done = shell(f"EDGE {songs} --bundle {bundle} -o /dev/stdout >> {songs}/a.wav")
    assert done.returncode == 2, done.stderr
    assert contents(songs) == before


@pytest.mark.parametrize(
    "ending",
    [
        "-o -",
        "-o /dev/stdout",
        "-o /dev/fd/1",
        "-o /proc/self/fd/1",
        "-o >(cat)",
        "-o /dev/stdout | cat",
        "-o - | cat",
        "-o link | cat",
        "-o /dev/fd/7 7>&1 | cat",
    ],
)
def test_standard_output_and_descriptors_by_name(songs: Path, bundle: Path, tmp_path: Path, ending: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "link").symlink_to("/dev/stdout")
    done = shell(f"EDGE {songs} --bundle {bundle} -f jsonl {ending}", cwd=here)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok", "ok"]
    assert [path.name for path in here.iterdir()] == ["link"]


def test_a_redirected_descriptor_is_appended_to_not_replaced(songs: Path, bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = shell(f"(echo first; EDGE {songs} --bundle {bundle} -f jsonl -o /dev/stdout; echo last) > {target}")
    assert done.returncode == 0, done.stderr
    lines = target.read_text().splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("first", 4, "last")
    done = shell(f"EDGE {songs} --bundle {bundle} -o /dev/fd/0 < {target}")
    assert (done.returncode, "reading only" in done.stderr) == (2, True)
    done = shell(f"EDGE {songs} --bundle {bundle} -o /dev/fd/99")
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)


def test_a_reader_of_an_output_pipe_that_leaves_is_no_error(songs: Path, bundle: Path) -> None:
    done = shell(f"EDGE {songs} --bundle {bundle} -f jsonl -o /dev/stdout | true; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, "Traceback" in done.stderr) == ("0\n", False)


def test_an_error_in_the_body_is_not_one_of_the_output(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: pipe.read_text(), daemon=True)
    reader.start()
    for path in (pipe, tmp_path / "file", None):
        with pytest.raises(PermissionError, match="elsewhere"), open_output(path):
            raise PermissionError(13, "Permission denied", "/elsewhere")
    reader.join(10)


@pytest.mark.parametrize(
    ("old", "mask", "expected"), [(0o600, 0o022, 0o600), (0o664, 0o077, 0o664), (None, 0o027, 0o640)]
)
def test_permissions(tmp_path: Path, old: int | None, mask: int, expected: int) -> None:
    target = tmp_path / "out"
    if old is not None:
        target.touch()
        target.chmod(old)
    before = os.umask(mask)
    try:
        with open_output(target) as write:
            write("text\n")
            partial = stat.S_IMODE((tmp_path / "out.partial").stat().st_mode)
        assert os.umask(mask) == mask, "the process keeps its umask"
    finally:
        os.umask(before)
    assert (partial, stat.S_IMODE(target.stat().st_mode)) == (expected, expected)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.touch()
    os.chown(target, 1234, 2345)
    with open_output(target) as write:
        write("text\n")
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 2345)


def test_results_are_in_the_partial_file_from_the_first_one(tmp_path: Path) -> None:
    target, partial = tmp_path / "out", tmp_path / "out.partial"
    target.write_text("old")
    partial.write_text("of an earlier run that was killed")
    with open_output(target) as write:
        assert partial.read_text() == "of an earlier run that was killed", "nothing is lost for nothing"
        write("one\n")
        assert (partial.read_text(), target.read_text()) == ("one\n", "old")
    assert (target.read_text(), partial.exists()) == ("one\n", False)


def test_a_run_that_fails_before_its_first_verdict_changes_nothing(songs: Path, bundle: Path, tmp_path: Path) -> None:
    target, partial = tmp_path / "out", tmp_path / "out.partial"
    for there in (False, True):
        if there:
            target.write_text("old")
            partial.write_text("kept")
        before = contents(tmp_path)
        assert run("classify", songs, "--bundle", bundle, "--policy", "none", "-o", target).returncode == 2
        assert contents(tmp_path) == before


def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with open_output(target) as write:
        write("first\n")
        with pytest.raises(UsageError, match="another run is writing it"), open_output(target):
            pass
    with open_output(target) as write:
        write("second\n")
    assert target.read_text() == "second\n"


def test_a_partial_file_that_is_moved_away_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(EdgeReclassError, match="moved or replaced"), open_output(tmp_path / "out") as write:
        write("text\n")
        (tmp_path / "out.partial").replace(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").read_text() == "text\n"
    assert not (tmp_path / "out").exists()


def test_what_lies_at_the_partial_name(tmp_path: Path) -> None:
    backup, partial = tmp_path / "backup", tmp_path / "out.partial"
    backup.write_text("as backed up")
    os.link(backup, partial)
    with open_output(tmp_path / "out") as write:
        write("new\n")
    assert (backup.read_text(), (tmp_path / "out").read_text()) == ("as backed up", "new\n")
    for make in (partial.mkdir, lambda: os.mkfifo(partial), lambda: partial.symlink_to(backup)):
        make()
        with pytest.raises(UsageError), open_output(tmp_path / "out"):
            pass
        partial.rmdir() if partial.is_dir() else partial.unlink()
    assert backup.read_text() == "as backed up"


NAMES = [
    "plain.wav",
    "caf\u00e9 \U0001f3b5.wav",
    "\u5b87\u591a\u7530\u3000\u30d2\u30ab\u30eb.flac",
    "back\\xe9slash.wav",
    "\x1b[2J\u202egnp\u2028.wav",
    "\udce9 stray byte.wav",
]


def verdicts() -> list[Verdict]:
    return [
        Verdict(name, "ok", "b", "p", "A", 0.5, "s", "because", "accepted", (Score("A", 0.5), Score("\u00c4", 0.4)))
        for name in NAMES
    ]


SHOW = """
import sys
from run.test_output import verdicts
from edge_reclass.run.formatters import formatter
from edge_reclass.run.output import open_output
with open_output(None) as write:
    view = formatter(sys.argv[1], genres=["A"], stages=["s"], top=2, utf8=write.utf8)
    write(view.begin())
    for verdict in verdicts():
        write(view.verdict(verdict))
    write(view.end())
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252", "utf-16-le", "shift_jis"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_on_every_stream(name: str, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, name],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding, "surrogateescape")
    if name == "json":
        paths = [verdict["path"] for verdict in json.loads(text)]
    elif name == "jsonl":
        paths = [json.loads(line)["path"] for line in text.splitlines()]
    elif name == "csv":
        paths = [row["path"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    else:
        paths = [line.split("  s           ")[1] for line in text.splitlines()[1:] if "  s           " in line]
        assert not set(text) & set("\x1b\u202e\u2028")
    if encoding != "utf-8" and name in ("csv", "table"):
        paths = [path.encode("latin-1", "backslashreplace").decode("unicode_escape") for path in paths]
        assert [path.replace("\\x1b", "\x1b") for path in paths if "[2J" not in path] == [
            name for name in NAMES if "[2J" not in name
        ]
    elif name != "table":
        assert paths == NAMES
    assert len(set(paths)) == len(NAMES)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("command", ["inspect", "doctor"])
def test_json_of_other_commands_on_every_stream(tmp_path: Path, command: str, encoding: str) -> None:
    root = bundles.make_bundle(
        tmp_path / "caf\u00e9 \U0001f3b5", [bundles.fma_stage()], provenance={"by": "Bj\u00f6rk \u202e\x7f"}
    )
    done = subprocess.run(
        [sys.executable, "-m", "edge_reclass", command, str(root), "--format", "json"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=120,
        check=False,
    )
    text = done.stdout.decode(encoding)
    assert (root.name in str(json.loads(text)), done.returncode) == (True, 0), done.stderr
    assert not set(text) & set("\u202e\x7f")


def test_inspect_keeps_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    root = bundles.make_bundle(
        tmp_path / os.fsdecode(b"caf\xe9"), [bundles.fma_stage()], provenance={"x": float("nan")}
    )
    plain = json.loads(run("inspect", root, "--format", "json").stdout)
    assert (os.fsencode(plain["path"]), plain["provenance"]) == (os.fsencode(root), {"x": None})


def test_json_holds_nothing_that_rewrites_a_terminal() -> None:
    for name in ("json", "jsonl"):
        view = formatter(name, genres=["A"], stages=["s"], top=2)
        text = view.begin() + "".join(map(view.verdict, verdicts())) + view.end()
        assert not set(text) & set("\x1b\x9b\u202e\u2028")
        assert "caf\u00e9 \U0001f3b5.wav" in text, "readable where it is harmless"


def test_a_killed_run_of_every_format_has_all_its_verdicts() -> None:
    for name in FORMATS:
        view = formatter(name, genres=["A"], stages=["s"], top=1)
        text = view.begin() + "".join(view.verdict(Verdict(f"{i}.wav", "missing", "b", "p")) for i in range(3))
        assert all(f"{i}.wav" in text for i in range(3)), name
    view = formatter("json", genres=["A"], stages=["s"], top=1)
    text = view.begin() + view.verdict(verdicts()[0]) + view.verdict(verdicts()[1])
    assert len(json.loads(text + "]")) == 2


def test_printable() -> None:
    for kept in (
        "Beyonc\u00e9\xa0\u2013 Halo",
        "\u5b87\u591a\u7530\u3000\u30d2\u30ab\u30eb",
        "a\u2009b",
        "\U0001f468\u200d\U0001f469",
        "\udce9",
        "\uf8ff",
    ):
        assert printable(kept) == kept
    controls = "\x00\x07\n\r\t\x1b\x7f\x85\x9b\xad\ufeff\U000e0041\ud800"
    directions = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    for escaped in controls + directions + "\u200b\u2028\u2029":
        assert printable(f"a{escaped}b") == f"a{ascii(escaped)[1:-1]}b"


def test_names_of_stages_genres_and_policies_cannot_rewrite_a_terminal() -> None:
    bad = "x\x1b[2J\u202e"
    stage = StageReport(bad, bad, 0.5, 1.0, ExcerptSeen(0.0, 1.0))
    verdict = Verdict(
        "a.wav",
        "ok",
        "b",
        bad,
        bad,
        0.5,
        bad,
        f"last stage of {bad}",
        "last_stage",
        (Score(bad, 0.5), Score(bad, 0.4)),
        (stage,),
    )
    for with_reasons in (False, True):
        view = formatter("table", genres=[bad], stages=[bad], top=2, explain=with_reasons)
        text = view.begin() + view.verdict(verdict)
        assert not set(text) & set("\x1b\u202e")
    assert "\x1b" not in explain(verdict)


def test_columns_of_the_table_are_as_wide_as_on_a_terminal() -> None:
    from rich.cells import cell_len

    view = formatter("table", genres=["\u6f14\u6b4c\u30dd\u30c3\u30d7\u30b9", "Pop"], stages=["s"], top=1)
    lines = [view.begin()]
    for genre in ("\u6f14\u6b4c\u30dd\u30c3\u30d7\u30b9", "Pop"):
        lines.append(
            view.verdict(Verdict("track", "ok", "b", "p", genre, 0.5, "s", "r", "accepted", (Score(genre, 0.5),)))
        )
    assert len({cell_len(line.split("track")[0]) for line in lines}) == 1


def unsure(code: str = "low_confidence") -> Verdict:
    heard = ExcerptSeen(0.0, 30.0)
    stages = (
        StageReport("fma", None, None, 1.0, heard),
        StageReport("mert", "Rock", 0.3, 2.0, heard, outside=True, distance=1.5),
        StageReport("jmla", "Rock", 0.3, 2.0, heard, distance=0.25),
        StageReport("last", "Rock", 0.3, 2.0, heard, windows=WindowsSeen(3, 11)),
    )
    scores = (Score("Rock", 0.31), Score("Pop", 0.3))
    damage = DamageSeen(3, 1200, 0.0125)
    return Verdict("a.wav", "unsure", "b", "p", None, 0.31, "last", "0.3100 < 0.4", code, scores, stages, damage, 1)


def test_an_unsure_verdict_in_every_format() -> None:
    text = formatter("table", genres=["Rock"], stages=["last"], top=2).verdict(unsure())
    first, others = text.splitlines()
    assert re.fullmatch(r"unsure \(Rock\?\) +0\.31  last +a\.wav", first), first
    assert others.strip() == "then Pop 0.30"
    plain = json.loads(formatter("jsonl", genres=["Rock"], stages=["last"], top=1).verdict(unsure()))
    assert (plain["status"], plain["genre"], plain["confidence"]) == ("unsure", None, 0.31)
    assert plain["top"] == [{"genre": "Rock", "score": 0.31}]
    assert plain["damage"] == {"bad_packets": 3, "packets": 1200, "missing": 0.0125, "declared": None}
    view = formatter("csv", genres=["Rock"], stages=["last"], top=1)
    (row,) = csv.DictReader(io.StringIO(view.begin() + view.verdict(unsure()), newline=""))
    assert list(row) == [key for key in plain if key != "stages"]
    assert (row["genre"], row["confidence"], row["top"]) == ("", "0.310000", "Rock=0.310000")
    assert (row["reason_code"], row["damage"], row["channel"]) == ("low_confidence", "0.012500", "1")


def test_explain_says_in_words_what_was_heard() -> None:
    lines = [line.strip() for line in explain(unsure()).splitlines()]
    assert lines == [
        "damaged: 3 of 1200 packets are bad, 1.2% of the excerpt is missing",
        "channel 1 was heard alone, because the mix of all cancels",
        "fma: silence, 1.0 ms, heard 0.00\u201330.00 s",
        "mert: Rock 0.300, 2.0 ms, heard 0.00\u201330.00 s, unlike anything that it was fitted on (1.50 of the limit)",
        "jmla: Rock 0.300, 2.0 ms, heard 0.00\u201330.00 s, like what it was fitted on (0.25 of the limit)",
        "last: Rock 0.300, 2.0 ms, heard 3 of 11 windows of 0.00\u201330.00 s",
        "unsure: 0.3100 < 0.4",
        "scores: Rock 0.310, Pop 0.300",
    ]


def test_min_confidence(songs: Path, bundle: Path) -> None:
    done = run("classify", songs, "--bundle", bundle, "--min-confidence", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unsure (Alpha?)") == 2
    assert "2 unsure" in done.stderr and "genres:" not in done.stderr
    done = run("classify", songs, "--bundle", bundle, "--min-confidence", 0)
    assert done.stdout.count("unsure") == 0
    assert done.stderr.splitlines()[-1] == "genres: Alpha 2"
