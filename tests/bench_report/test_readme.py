"""The README's performance section is what the stored records say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench_report.made_records import make_record
from edge_reclass.errors import UsageError
from edge_reclass_bench.record import save
from edge_reclass_bench.report.readme import BEGIN, END, performance_section, stored_records, with_section

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "readme_table.py"


@pytest.fixture
def stored(tmp_path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    save(make_record(), folder / "b.json")
    other = make_record({"fma": 12.0, "musicnn": 80.0}, bundle="starter", without=("cold-start", "peers"))
    save(msgspec.structs.replace(other, warnings=[]), folder / "a.json")
    (folder / "another_kind.json").write_text('{"kind": "gpu-check"}')
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nEnd.\n")
    return folder


def run(stored: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--readme", str(stored.parent / "README.md"), "--results", str(stored)]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def test_one_command_writes_the_section_and_says_when_it_is_out_of_date(stored):
    readme = stored.parent / "README.md"
    assert run(stored, "--check").returncode == 1
    assert "old" in readme.read_text()
    assert run(stored).returncode == 0
    assert readme.read_text() == f"# Title\n\n{BEGIN}\n{performance_section(stored_records(stored))}\n{END}\n\nEnd.\n"
    assert run(stored, "--check").returncode == 0
    save(make_record(seed=9), stored / "b.json")
    assert run(stored, "--check").returncode == 1, "another record is another section"


def test_the_section_says_machine_command_file_and_numbers(stored):
    section = performance_section(stored_records(stored))
    assert section.count("On Made-up CPU, 2 cores:") == 1
    for name in ("a.json", "b.json"):
        assert f"`benchmarks/results/{name}`: 2026-11-20, 120 tracks, commit 43283b4" in section
    record = make_record()
    for measured in (
        next(record.find(scenario="stage", stage="mert", part="total")),
        next(record.find(scenario="offline", part="throughput")),
    ):
        assert f"{measured.summary.mean.value:,.4g}"[:3] in section.replace("\u202f", ",")
    assert "untrained weights" in section and "7.90" in section
    assert section.count("1 warning in the record") == 1
    table = next(line for line in section.splitlines() if "cold start" in line)
    assert "–" in table, "what one record lacks is said to be missing"


def test_the_command_keeps_its_record_where_it_is_stored():
    record = make_record()
    run = ["/venv/bin/edge-reclass", "bench", "run", "music", "-o", "/home/me/x.json"]
    record = msgspec.structs.replace(record, environment=msgspec.structs.replace(record.environment, command=run))
    section = performance_section([("b.json", record)])
    assert "`edge-reclass bench run music -o benchmarks/results/b.json`" in section
    assert "/home/me" not in section


def test_no_records_make_an_empty_section_and_broken_ones_are_named(tmp_path):
    assert performance_section(stored_records(tmp_path)) == ""
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UsageError, match=r"x\.json"):
        stored_records(tmp_path)
    (tmp_path / "x.json").write_text(json.dumps({"kind": "edge-reclass-bench", "format": 99}))
    with pytest.raises(UsageError, match="format"):
        stored_records(tmp_path)


@pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN, BEGIN + END + END], ids=["none", "one", "turned", "twice"])
def test_a_readme_without_its_markers_is_refused(text):
    with pytest.raises(UsageError, match="performance: begin"):
        with_section(text, "x")


def test_the_readme_says_what_the_stored_records_say():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    records = stored_records(ROOT / "benchmarks" / "results")
    if BEGIN not in readme:
        # Until somebody puts the markers there, nothing that was stored may go unsaid.
        assert records == []
        return
    assert with_section(readme, performance_section(records)) == readme, "run python benchmarks/readme_table.py"


def test_stored_records_name_no_folder_of_the_machine_that_made_them():
    for file in sorted((ROOT / "benchmarks" / "results").iterdir()):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r'"/[A-Za-z][^"]*"', text) == [], file.name
