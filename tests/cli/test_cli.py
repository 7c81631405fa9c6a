"""The command line as a user runs it; in processes of its own where that matters."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import soundfile

import bundles
from command import RATE, bundle, music, run, shell
from edge_reclass.bundle.loading import load, starter_path
from edge_reclass.run import CascadePool, Track
from edge_reclass.run.formatters import FORMATS, formatter
from edge_reclass.verdict import Verdict

__all__ = ["bundle", "music"]

KEYS = [
    "path",
    "status",
    "genre",
    "confidence",
    "decided_by",
    "reason",
    "reason_code",
    "top",
    "stages",
    "damage",
    "channel",
    "bundle",
    "policy",
    "error",
    "format",
    "bundle_digest",
    "program",
    "at",
    "size",
    "mtime_ns",
]
STAGE_KEYS = ["name", "genre", "confidence", "milliseconds", "excerpt", "windows", "outside", "distance", "abstains"]


def test_table(bundle: Path, music: Path) -> None:
    done = run("classify", music, "--bundle", bundle)
    assert done.returncode == 0, done.stderr
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["genre", "score", "decided", "by", "track"]
    assert first.split()[0] == second.split()[0] == "Alpha"
    assert first.endswith(f"{music}/album/a.flac")
    assert second.endswith(f"{music}/b.wav")
    assert "2 tracks in" in done.stderr
    assert "skipped 2 hidden and 1 non-audio file" in done.stderr
    assert "decided by: mert 2 (100%)" in done.stderr


def test_json_has_the_documented_keys_in_order(bundle: Path, music: Path) -> None:
    done = run("classify", music, "--bundle", bundle, "--format", "json", "--top", 2)
    verdicts = json.loads(done.stdout)
    assert [list(verdict) for verdict in verdicts] == [KEYS, KEYS]
    verdict = verdicts[0]
    assert list(verdict["stages"][0]) == STAGE_KEYS
    assert verdict["stages"][0]["excerpt"] == {"start": 0.0, "seconds": 3.0}
    assert [list(score) for score in verdict["top"]] == [["genre", "score"]] * 2
    assert (verdict["status"], verdict["decided_by"], verdict["error"]) == ("ok", "mert", None)
    assert (verdict["bundle"], verdict["policy"]) == ("test", "ladder")


def test_jsonl_and_keys_that_do_not_apply(bundle: Path, music: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp3").write_text("this is no music")
    done = run("classify", tmp_path, music, "--bundle", bundle, "-f", "jsonl")
    assert done.returncode == 3
    bad, *good = [json.loads(line) for line in done.stdout.splitlines()]
    assert (bad["status"], len(good)) == ("corrupt", 2)
    assert [bad[key] for key in ("genre", "confidence", "decided_by", "reason", "top", "stages")] == [None] * 6
    assert bad["error"]


def test_csv(bundle: Path, music: Path) -> None:
    done = run("classify", music, "--bundle", bundle, "-f", "csv", "--top", 3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["genre"] for row in rows] == ["Alpha", "Alpha"]
    assert rows[0]["top"].startswith("Alpha=0.99")
    assert rows[0]["top"].count(";") == 2
    assert re.fullmatch(r"0\.\d{6}", rows[0]["confidence"])
    done = run("classify", music, "--bundle", bundle, "-f", "csv")
    assert [row["top"] for row in csv.DictReader(io.StringIO(done.stdout))] == ["", ""], "it would repeat the genre"


def test_explain(bundle: Path, music: Path) -> None:
    done = run("classify", music / "b.wav", "--bundle", bundle, "--explain")
    assert "    fma: Beta 0." in done.stdout
    assert " ms, heard 0.00–3.00 s" in done.stdout
    assert "    stopped: last stage of ladder" in done.stdout
    done = run("classify", music, "--bundle", bundle, "--explain", "-f", "json")
    assert done.returncode == 2
    assert "--explain goes with the table" in done.stderr


def test_output_file_appears_whole_or_not_at_all(bundle: Path, music: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    done = run("classify", music, "--bundle", bundle, "-f", "jsonl", "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    assert len(target.read_text().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    done = run("classify", music, "--bundle", bundle, "-o", tmp_path / "no" / "such" / "out")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("name", ["jsonl", "json"])
def test_what_was_done_before_an_interruption_is_kept(
    bundle: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    submit = CascadePool.submit

    def interrupted(pool: CascadePool, path: Track) -> Future[Verdict]:
        if path.path.name == "b.wav":
            raise KeyboardInterrupt
        return submit(pool, path)

    monkeypatch.setattr(CascadePool, "submit", interrupted)
    target = tmp_path / "out"
    target.write_text("an earlier run")
    done = run("classify", music, "--bundle", bundle, "-f", name, "-o", target)
    assert done.returncode == 130
    assert f"interrupted after 1 of 2 tracks; their verdicts are in {target}.partial" in done.stderr
    assert target.read_text() == "an earlier run"
    partial = (tmp_path / "out.partial").read_text()
    verdicts = json.loads(partial) if name == "json" else [json.loads(line) for line in partial.splitlines()]
    assert [verdict["status"] for verdict in verdicts] == ["ok"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.partial"]


def test_jobs_give_the_same_verdicts_in_the_same_order(bundle: Path, music: Path) -> None:
    def verdicts(*options: object) -> list[object]:
        done = run("classify", music, "--bundle", bundle, "-f", "json", *options)
        return [(v["path"], v["genre"], v["top"]) for v in json.loads(done.stdout)]

    assert verdicts() == verdicts("--jobs", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{music}", "--policy", "fmj-ev"], 2, "stages fma, mert, jmla; this bundle has fma, mert"),
        (["{music}", "--policy", "nope"], 2, "the bundle test has ladder"),
        (["{music}", "--format", "xml"], 2, "expected one of table, json, jsonl, csv"),
        (["{music}", "--device", "cuda"], 5, "cuda"),
        (["{music}", "--device", "abacus"], 2, "no device 'abacus'"),
        (["{empty}"], 2, "no audio found in"),
        ([""], 2, "an empty path"),
        (["{music}/album/cover.jpg"], 3, "1 unsupported"),
        (["{music}/not-there"], 3, "1 missing"),
    ],
)
def test_exit_codes(bundle: Path, music: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "notes.txt").write_text("no music")
    filled = [argument.format(music=music, empty=tmp_path) for argument in arguments]
    done = run("classify", *filled, "--bundle", bundle)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_altered_bundle_is_exit_4(music: Path, tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path, [bundles.fma_stage()])
    head = root / "heads/fma.onnx"
    head.write_bytes(head.read_bytes()[::-1])
    for command in (["classify", music, "--bundle", root], ["inspect", root]):
        done = run(*command)
        assert done.returncode == 4
        assert "expected sha256" in done.stderr
    assert run("classify", music, "--bundle", tmp_path / "none").returncode == 4


def test_inspect(bundle: Path) -> None:
    done = run("inspect", bundle)
    assert done.returncode == 0
    for part in ("genres   3: Alpha, Beta, Gamma", "stage    mert: 8 wide at 16000 Hz", "after fma: accepts above 0.9"):
        assert part in done.stdout
    plain = json.loads(run("inspect", bundle, "--format", "json").stdout)
    assert plain["genres"] == list(bundles.GENRES)
    assert len(plain["digest"]) == 64


def test_a_reader_that_leaves_early_is_no_error(bundle: Path, music: Path) -> None:
    done = shell(f"EDGE {music} --bundle {bundle} -f jsonl | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == "0\n", done.stderr
    assert "Traceback" not in done.stderr


def test_closed_and_full_standard_streams(bundle: Path, music: Path, tmp_path: Path) -> None:
    run_it = f"EDGE {music} --bundle {bundle} -f jsonl"
    done = shell(f"{run_it} >&-")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    done = shell(f"{run_it} 2>&-")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    if Path("/dev/full").exists():
        done = shell(f"{run_it} > /dev/full")
        assert done.returncode == 1
        assert "standard output cannot be written (No space left on device)" in done.stderr
        assert "Traceback" not in done.stderr


def test_output_to_a_pipe_a_link_and_a_folder(bundle: Path, music: Path, tmp_path: Path) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "real.jsonl"
    os.mkfifo(pipe)
    done = shell(f"EDGE {music} --bundle {bundle} -f jsonl -o {pipe} & cat {pipe}")
    assert len(done.stdout.splitlines()) == 2
    assert pipe.is_fifo()
    link.symlink_to(target)
    assert run("classify", music, "--bundle", bundle, "-f", "jsonl", "-o", link).returncode == 0
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 2
    done_in = run("classify", music, "--bundle", bundle, "-o", tmp_path)
    assert done_in.returncode == 2
    assert "expected a file, got a folder" in done_in.stderr
    assert "tracks in" not in done_in.stderr, "it is said before anything is classified"


def test_every_piece_of_every_format_ends_a_line() -> None:
    """A progress bar on the same terminal would wipe out a line that is not ended."""
    verdict = Verdict("a.wav", "missing", "b", "p", error="no such file")
    for name in FORMATS:
        view = formatter(name, genres=["A"], stages=["s"], top=1)
        pieces = [view.begin(), view.verdict(verdict), view.verdict(verdict), view.end()]
        assert all(piece == "" or piece.endswith("\n") for piece in pieces), name
    empty = formatter("json", genres=[], stages=[], top=1)
    assert json.loads(empty.begin() + empty.end()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="file names of arbitrary bytes are a Linux matter")
def test_names_that_are_not_utf8_are_not_lost(bundle: Path, tmp_path: Path) -> None:
    name = b"caf\xe9 \xe2\x99\xab.wav"
    source = tmp_path / "x.wav"
    soundfile.write(source, (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32), RATE)
    source.rename(tmp_path / os.fsdecode(name))
    done = run("classify", tmp_path, "--bundle", bundle, "-f", "jsonl")
    assert done.returncode == 0, done.stderr
    assert os.fsencode(json.loads(done.stdout)["path"]).endswith(name)
    table = subprocess.run(
        [sys.executable, "-m", "edge_reclass", "classify", tmp_path, "--bundle", bundle],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert name in table.stdout


def test_the_example_of_the_docs_is_what_the_program_prints(bundle: Path, music: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    examples = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    (example,) = [one for one in examples if "genre" in one]
    assert list(example) == KEYS
    done = run("classify", music / "b.wav", "--bundle", bundle, "-f", "jsonl")
    printed = json.loads(done.stdout)
    assert list(printed) == KEYS
    assert [list(stage) for stage in example["stages"]] == [STAGE_KEYS] * len(example["stages"])
    assert list(example["stages"][0]["excerpt"]) == list(printed["stages"][0]["excerpt"])
    # The same rules: who decides, with which score, and the threshold of the bundle that it names.
    manifest = load(starter_path()).manifest
    policy = manifest.policies[example["policy"]]
    heard = example["stages"][-1]["windows"]["heard"]
    step = next(step for step in policy.steps if (step.after, step.windows) == (example["decided_by"], heard))
    assert example["reason"] == f"{example['confidence']:.4f} > {step.accept:g} after {heard} window of {step.after}"
    assert (example["bundle"], example["genre"]) == (manifest.name, example["top"][0]["genre"])
    assert example["genre"] in manifest.genres and example["reason_code"] == "accepted"


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("edge-reclass 0.")
    listing = run("--help").stdout
    assert "classify" in listing
    assert "inspect" in listing
    assert "[default: the starter bundle]" in run("classify", "--help").stdout
