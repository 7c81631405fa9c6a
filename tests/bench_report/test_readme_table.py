"""The speed section of the docs is what the stored records say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.sample import make_record
from edge_reclass_bench.record import save

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "readme_table.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)


def test_one_command_writes_the_section_and_says_when_it_is_out_of_date(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# T\n\n<!-- performance: begin -->\nold\n<!-- performance: end -->\n\nEnd.\n")
    (tmp_path / "other.json").write_text('{"kind": "gpu-check"}')
    save(make_record(), tmp_path / "a.json")
    options = ("--page", str(page), "--results", str(tmp_path))
    assert run(*options, "--check").returncode == 1
    assert "old" in page.read_text()
    assert run(*options).returncode == 0
    text = page.read_text()
    assert "### a.json" in text and text.endswith("\n\nEnd.\n")
    assert run(*options, "--check").returncode == 0
    save(make_record(seed=9), tmp_path / "a.json")
    assert run(*options, "--check").returncode == 1, "another record is another section"


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# T\n")
    done = run("--page", str(tmp_path / "page.md"), "--results", str(tmp_path))
    assert done.returncode == 2
    assert "needs the lines" in done.stderr


def test_the_stored_section_is_what_the_stored_records_say() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr
