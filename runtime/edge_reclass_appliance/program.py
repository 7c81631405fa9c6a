"""The program: a virtual environment per set of wheels, and a link that switches to it when it is complete."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edge_reclass_appliance import files, trust, unpacking
from edge_reclass_appliance.errors import FAILED, UNSUPPORTED, ApplianceError, usage
from edge_reclass_appliance.machine import find_python
from edge_reclass_appliance.saying import Steps, say
from edge_reclass_appliance.trial import Trial
from edge_reclass_appliance.units import Plan

_MADE = re.compile(r"py3\.\d+-[0-9a-f]{16}")


@dataclass(frozen=True)
class Program:
    """The environments of a machine."""

    plan: Plan
    python: str
    """The command of the target's Python."""
    tried: str = ""
    """The key of an environment that is complete and not in use yet; empty: the one in use is meant."""

    @property
    def prefix(self) -> Path:
        """Where environments are, really."""
        return self.plan.root / self.plan.settings.prefix[1:]

    @property
    def command(self) -> str:
        """``edge-reclass`` of the environment in use, or of the one that is tried."""
        return str(self.prefix / (f"venvs/{self.tried}" if self.tried else "venv") / "bin/edge-reclass")

    def installed(self) -> str:
        """The key of the environment in use, or the one that is tried; empty: none, broken off or deleted."""
        key = self.tried or files.link_target(self.prefix / "venv").removeprefix("venvs/")
        folder = self.prefix / "venvs" / key
        return (
            key if key and (folder / ".complete").is_file() and os.access(folder / "bin/edge-reclass", os.X_OK) else ""
        )

    def key(self, wheelhouse: Path) -> str:
        """The key of the environment that a wheelhouse makes: another wheel or Python is another environment.

        Raises:
            ApplianceError: it has no requirements.lock.
        """
        lock = unpacking.read_member(wheelhouse, "requirements.lock")
        if lock is None:
            raise ApplianceError(f"{wheelhouse} has no requirements.lock", "copy the archive again")
        return f"py{self.plan.machine.target.python_version}-{hashlib.sha256(lock).hexdigest()[:16]}"

    def check_wheelhouse(self, wheelhouse: Path) -> None:
        """Wheels are for one Python and one kind of processor: say so before pip says something less clear.

        Raises:
            ApplianceError: it is absent, damaged, or for another target.
        """
        target = self.plan.machine.target
        make = f"make one on a machine with a network: jetson/make_wheelhouse.sh {target.name}"
        if not wheelhouse.exists():
            raise usage(f"--wheelhouse {wheelhouse}: there is no such file or folder", make)
        digest = files.read(wheelhouse.with_name(f"{wheelhouse.name}.sha256")).split()
        # The digest alone is compared: both files may have got another name on the way.
        if wheelhouse.is_file() and digest and _sha256(wheelhouse) != digest[0]:
            raise ApplianceError(
                f"{wheelhouse} does not match {wheelhouse.name}.sha256: it was damaged on the way",
                "copy the archive again",
            )
        try:
            made = json.loads(unpacking.read_member(wheelhouse, "manifest.json") or b"")["target"]
            found = f"{made['name']} {made['python']} {made['machine']}"
        except (ValueError, KeyError, TypeError) as error:
            raise ApplianceError(
                f"{wheelhouse}: its manifest.json cannot be read: this is no wheelhouse, or it was damaged", make
            ) from error
        expected = f"{target.name} {target.python_version} {self.plan.machine.processor}"
        if found != expected:
            raise ApplianceError(
                f"{wheelhouse} was made for '{found}' (target, Python, machine), but this is '{expected}'", make
            )

    def step(self, steps: Steps, wheelhouse: Path | None, trial: Trial) -> Program:
        """Install the program of ``wheelhouse``, if it is not in use already; None: keep the one in use.

        Gives the program to try the bundle with; :meth:`use` switches to it.

        Raises:
            ApplianceError: it cannot be installed; the program in use was not touched.
        """
        have, target = self.installed(), self.plan.machine.target
        place = f"{self.plan.settings.venv} ({have})"
        if wheelhouse is None:
            archive = f"edge-reclass-VERSION-{target.name}.tar"
            if have.startswith(f"py{target.python_version}-"):
                steps.step("same", "program", place)
                return self
            if steps.check:
                text = f"needs --wheelhouse {archive} (jetson/make_wheelhouse.sh {target.name} makes it)"
                steps.step("todo", "program", text)
                return self
            why = "the program is not installed"
            if have:
                why = f"the installed program ({have}) is for another Python than {target.python_version}"
            raise usage(f"{why}, and no --wheelhouse was given", f"provision.sh --wheelhouse {archive} …")
        self.check_wheelhouse(wheelhouse)
        link = self.prefix / "venv"
        if link.exists() and not link.is_symlink():
            raise ApplianceError(
                f"{self.plan.settings.venv} is a folder of its own, not our link: somebody installed by hand",
                f"sudo mv {self.plan.settings.venv} {self.plan.settings.venv}.by-hand",
            )
        want = self.key(wheelhouse)
        todo = f"install {want} from {wheelhouse.name}{f', instead of {have}' if have else ''}"
        if not steps.settle("program", same=have == want, now=place, todo=todo):
            return self
        with self._unpacked(wheelhouse) as wheels:
            self._install(want, wheels, trial)
        return replace(self, tried=want)

    def use(self, steps: Steps) -> None:
        """Switch to the environment that was tried; does nothing where none was."""
        if not self.tried:
            return
        have = replace(self, tried="").installed()
        files.switch(self.prefix / "venv", f"venvs/{self.tried}")
        was = f", was {have}; the old one stays until removed" if have else ""
        steps.step("done", "program", f"{self.plan.settings.venv} ({self.tried}){was}")

    @contextmanager
    def _unpacked(self, wheelhouse: Path) -> Iterator[Path]:
        if wheelhouse.is_dir():
            yield wheelhouse.resolve()
            return
        for left in self.prefix.glob(".unpacked.*"):  # by a power cut
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".unpacked.", dir=self.prefix))
        try:
            unpacking.unpack(wheelhouse, folder)
            yield next(folder.glob("*/requirements.lock"), folder / "requirements.lock").parent
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _install(self, key: str, wheels: Path, trial: Trial) -> None:
        """Make the environment at its own place, since its scripts hold the path; ``.complete`` is written last."""
        folder, target = self.prefix / "venvs" / key, self.plan.machine.target
        say(f"installing the program into {folder}")
        in_use = files.link_target(self.prefix / "venv").removeprefix("venvs/")
        folder.parent.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.iterdir():  # what a power cut left; the one in use may still be running
            if _MADE.fullmatch(old.name) and old.name != in_use and not (old / ".complete").exists():
                shutil.rmtree(old)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._fill(folder, wheels, trial, target.name)
        except BaseException:  # a full disk does not stay full
            shutil.rmtree(folder, ignore_errors=True)
            raise
        files.sync_tree(folder)
        (folder / ".complete").touch()
        files.sync_folder(folder)

    def _fill(self, folder: Path, wheels: Path, trial: Trial, target: str) -> None:
        again = f"copy the archive again, or make it again: jetson/make_wheelhouse.sh {target}"
        gpu = self.plan.machine.device != "cpu"
        site = ["--system-site-packages"] if gpu else []  # so that JetPack's TensorRT is seen
        python = str(folder / "bin/python")
        pip = next(iter(sorted((wheels / "wheels").glob("pip-*.whl"))), None)
        if pip is None:
            raise ApplianceError(f"{wheels} holds no wheel of pip", again)
        # pip runs out of its own wheel, so Ubuntu's python3-venv is not needed. --ignore-installed: the system's
        # packages may change under us, so nothing of the lock is taken from there.
        install = ["--isolated", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        install += ["--find-links", str(wheels / "wheels"), "--require-hashes", "--ignore-installed"]
        _run(
            [self.python, "-I", "-m", "venv", "--without-pip", *site, str(folder)],
            f"the virtual environment {folder} cannot be made",
            f"df -h {folder.parent}",
        )
        _run(
            [python, "-I", f"{pip}/pip", *install, "-r", str(wheels / "requirements.lock")],
            "the wheels cannot be installed (see pip's message above); the program in use was not touched",
            again,
        )
        if gpu:
            trial.require(
                [python, "-I", "-c", "import tensorrt; tensorrt.__version__"],
                f"TensorRT {self.plan.machine.tensorrt} is installed, but {python} cannot import it",
                "sudo apt-get install --reinstall nvidia-tensorrt python3-libnvinfer",
                UNSUPPORTED,
            )
        trial.require(
            [str(folder / "bin/edge-reclass"), "--version"],
            "the installed program does not start; the program in use was not touched",
            again,
        )


def tools_step(steps: Steps, plan: Plan) -> None:
    """Keep this program itself as one file, for when there is no environment.

    Raises:
        ApplianceError: it cannot be written.
    """
    path, content = plan.root / plan.settings.tool[1:], as_one_file()
    same = path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == _EXECUTABLE
    if steps.settle("tools", same=same, now=plan.settings.tool, todo=f"write {plan.settings.tool}"):
        files.write_bytes(path, content, _EXECUTABLE)
        steps.step("done", "tools", plan.settings.tool)


def as_one_file() -> bytes:
    """This package as a program in one file: a zip that ``python3 -I`` runs; the same bytes for the same sources."""
    archive = getattr(globals()["__loader__"], "archive", None)
    if archive is not None:  # it is run out of that file
        return Path(archive).read_bytes()
    source, made = Path(__file__).parent, io.BytesIO()
    texts = {f"{source.name}/{path.relative_to(source)}": path.read_bytes() for path in source.rglob("*.py")}
    texts["__main__.py"] = _MAIN.encode()
    with zipfile.ZipFile(made, "w") as whole:
        for name in sorted(texts):
            whole.writestr(zipfile.ZipInfo(name), texts[name])
    return _FIRST_LINE + made.getvalue()


_EXECUTABLE = 0o755
# -I: no variable of the caller's, and no folder but this file, says where modules come from. -B: none is compiled here.
_FIRST_LINE = b"#!/usr/bin/python3 -IB\n"
_MAIN = """\
import sys
from edge_reclass_appliance.__main__ import main
sys.exit(main(sys.argv[1:], "edge-reclass-appliance"))
"""


def command_links(plan: Plan) -> dict[str, str]:
    """Link in /usr/local/bin → what it names: so that what messages say can be typed."""
    links = {"edge-reclass": f"{plan.settings.venv}/bin/edge-reclass"}
    if trust.packaged(plan.root) is None:  # the package has its own, which is the newer one after an upgrade
        links["edge-reclass-appliance"] = plan.settings.tool
    return links


def commands_step(steps: Steps, plan: Plan, folder: str) -> None:
    """Put the commands on the PATH; a command of another origin stays, and that is said."""
    todo = []
    for name, target in command_links(plan).items():
        link = plan.root / folder[1:] / name
        if files.link_target(link) == target:
            continue
        if link.exists() and not link.is_symlink():
            steps.step("warning", "commands", f"{folder}/{name} is another program's, and stays: use {target}")
            continue
        todo.append((link, target))
    names = ", ".join(link.name for link, _ in todo)
    if steps.settle("commands", same=not todo, now=f"{folder}/edge-reclass", todo=f"link {names} in {folder}"):
        try:
            for link, target in todo:
                files.switch(link, target)
        except OSError as error:
            text = (
                f"{folder} cannot be written ({error.strerror}): call them as {', '.join(command_links(plan).values())}"
            )
            steps.step("warning", "commands", text)
            return
        steps.step("done", "commands", f"{names} in {folder}")


def _run(command: list[str], what: str, fix: str) -> None:
    """Run a Python of the system's, with ``-I``, as root: nothing in the caller's folder or variables is imported."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ, cwd="/", check=False
    )
    if done.returncode != 0:
        for line in (done.stdout + done.stderr).strip().splitlines()[-20:]:
            say(f"  {line}")
        raise ApplianceError(what, fix, FAILED)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def for_plan(plan: Plan) -> Program:
    """The program of a machine. Raises ApplianceError where its Python is missing."""
    return Program(plan, find_python(plan.machine.target))
