"""What the wheel holds: six packages, the starter bundle, the licence; and that the README's words are true."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edge_reclass
from edge_reclass.bundle.loading import load, starter_path

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling (extra [dev])")
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = target.iterdir()
    return zipfile.ZipFile(file)


def test_the_wheel_has_seven_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    info = f"edge_reclass-{edge_reclass.__version__}.dist-info"
    beside = ("", "_appliance", "_doctor", "_service", "_export", "_learn", "_bench")
    packages = {f"edge_reclass{name}" for name in beside}
    assert tops == {*packages, info}
    assert {f"{package}/py.typed" for package in tops - {info}} <= set(wheel.namelist())
    assert not [name for name in wheel.namelist() if "export/starter" in name], "the starter's fitting is not for users"
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert not [name for name in wheel.namelist() if Path(name).suffix in {".wav", ".ogg", ".mp3", ".flac", ".pyc"}]


def test_the_wheel_has_the_whole_starter_bundle(wheel: zipfile.ZipFile) -> None:
    prefix = "edge_reclass/bundles/starter/"
    packed = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    assert packed == {"bundle.yaml", *load(starter_path()).manifest.files}


def test_the_wheel_says_who_made_it_and_under_which_licences(wheel: zipfile.ZipFile) -> None:
    info = f"edge_reclass-{edge_reclass.__version__}.dist-info"
    licences = {name.removeprefix(f"{info}/licenses/") for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "runtime/edge_reclass/bundles/starter/LICENSE.musicnn"}
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0 AND ISC" in metadata
    assert "\nAuthor: edge-reclass developers\n" in metadata
    assert {"Homepage", "Source", "Issues"} <= set(re.findall(r"^Project-URL: (\w+),", metadata, re.MULTILINE))


def test_every_module_of_the_runtime_imports() -> None:
    for module in pkgutil.walk_packages(edge_reclass.__path__, "edge_reclass."):
        importlib.import_module(module.name)


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """constraints/oldest.txt is what CI installs on Python 3.10; it has to be what pyproject.toml promises."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    promised = [*project["dependencies"], *extras["cpu"], *extras["codecs"]]
    oldest = dict(
        line.split("==") for line in (ROOT / "constraints/oldest.txt").read_text().splitlines() if "==" in line
    )
    for requirement in promised:
        match = re.fullmatch(r"([a-z0-9-]+)>=([\d.]+)", requirement)
        assert match, requirement
        name, bound = match.groups()
        installed = oldest[name].split(".")
        assert installed[: len(bound.split("."))] == bound.split("."), (
            f"{name}: {bound} promised, {oldest[name]} tested"
        )


def test_the_readme_links_to_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link


def test_no_document_has_a_placeholder() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), starter_path() / "README.md"):
        text = path.read_text(encoding="utf-8")
        for placeholder in ("@@", "TODO", "PERFORMANCE", "XXX", "TBD"):
            assert placeholder not in text, (path, placeholder)


def test_the_docs_name_every_status_and_exit_code() -> None:
    from edge_reclass.errors import ANSWER_STATUSES, FAILURE_STATUSES

    text = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    for status in (*ANSWER_STATUSES, *FAILURE_STATUSES):
        assert f"`{status}`" in text, status
