"""Modules that lie in the folder where somebody calls the installation, or where PYTHONPATH says, are never run."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from appliance.unit_file import plan
from edge_reclass_appliance.bundles import Bundles
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.machine import find_python
from edge_reclass_appliance.program import Program
from edge_reclass_appliance.releases import Target
from edge_reclass_appliance.trial import Trial

_FAKE_PIP = """\
import os, pathlib, sys
program = pathlib.Path(sys.prefix, "bin/edge-reclass")
program.write_text("#!/bin/sh\\necho 1\\n")
program.chmod(0o755)
"""


def test_nothing_of_the_callers_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison, ran = tmp_path / "poison", tmp_path / "ran"
    for name in ("venv.py", "sitecustomize.py", "json.py", "edge_reclass/__init__.py", "edge_reclass/bundle.py"):
        (poison / name).parent.mkdir(parents=True, exist_ok=True)
        evil = f"open({str(ran)!r}, 'a').write({name!r})\nstarter_path = lambda: '/evil'\n"
        (poison / name).write_text(evil)
    (tmp_path / "wheels/wheels").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "wheels/wheels/pip-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__main__.py", _FAKE_PIP)
    (tmp_path / "wheels/requirements.lock").touch()
    monkeypatch.chdir(poison)
    monkeypatch.setenv("PYTHONPATH", str(poison))

    machine_plan = plan(root=tmp_path)
    trial = Trial(machine_plan)
    python = os.path.realpath(sys.executable)
    program = Program(machine_plan, python)
    program.prefix.mkdir(parents=True)
    program._install("key", tmp_path / "wheels", trial)
    (program.prefix / "venv").symlink_to("venvs/key")
    with pytest.raises(ApplianceError, match="no starter bundle"):
        Bundles(program, trial).starter()

    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(python)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert Path(find_python(Target("here", "", sys.version_info[:2], ("", "")))).is_absolute()
    assert not ran.exists(), ran.read_text()
