"""Bundles, A and B: each in a folder named after its content; ``current`` and ``previous`` are links.

A bundle is switched to after it was tried as it will run (``trial.py``): hashes, engines for this device, and every
stage with its head answering to made audio. What disagrees is deleted again, and the bundle in use stays in use.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance import files, places, tone, unpacking
from edge_reclass_appliance.errors import BAD_BUNDLE, ApplianceError, usage
from edge_reclass_appliance.program import Program
from edge_reclass_appliance.saying import say
from edge_reclass_appliance.trial import OUT, Trial

CURRENT, PREVIOUS = "current", "previous"
_VERIFIED = ".verified"
_TONE, _ENGINES = "tone.wav", "engines"


@dataclass(frozen=True)
class Inspected:
    """What a bundle's manifest says, after every file was compared with its hash."""

    name: str
    """``NAME-`` and 12 digits of its digest."""
    graphs: bool
    """Whether a stage has a graph, and so an engine on a GPU."""


@dataclass(frozen=True)
class Bundles:
    """The bundles of a machine."""

    program: Program
    trial: Trial

    @property
    def folder(self) -> Path:
        """Where they lie, really."""
        return self.program.plan.root / places.BUNDLES[1:]

    @property
    def _engines(self) -> Path:
        return self.program.plan.root / places.ENGINES[1:]

    @property
    def _tensorrt(self) -> bool:
        return self.program.plan.machine.device == "tensorrt"

    def named(self, link: str) -> str:
        """The bundle that ``current`` or ``previous`` names; empty where there is none."""
        return files.link_target(self.folder / link)

    def names(self) -> list[str]:
        """Every bundle that is installed."""
        return sorted(path.parent.name for path in self.folder.glob("*/bundle.yaml") if not path.parent.is_symlink())

    def starter(self) -> Path:
        """The bundle inside of the program."""
        python = str(Path(self.program.command).with_name("python"))
        asked = [python, "-I", "-c", "from edge_reclass.bundle import starter_path; print(starter_path())"]
        return Path(self.trial.require(asked, "the program has no starter bundle", "provision.sh --bundle DIR").strip())

    def verified_for(self) -> str:
        """What a verification holds for: another program, JetPack, TensorRT or sandbox makes it void."""
        machine = self.program.plan.machine
        return (
            f"of=every-stage tried-as={self.trial.how} device={machine.device} l4t={machine.l4t or 'none'}"
            f" tensorrt={machine.tensorrt or 'none'} max_batch={self.program.plan.limits.batch}"
            f" program={self.program.installed()}\n"
        )

    def is_verified(self, name: str) -> bool:
        """Whether the bundle was verified with this program on this machine."""
        return files.read(self.folder / _VERIFIED / name) == self.verified_for()

    def another_machine(self, name: str) -> bool:
        """Whether JetPack, TensorRT or the limits changed since: then no engine is used again."""
        before = re.sub(r" program=.*", "", files.read(self.folder / _VERIFIED / name))
        return before != re.sub(r" program=.*", "", self.verified_for())

    def inspect(self, folder: Path, source: Path | None = None) -> Inspected:
        """Check every hash of a bundle, as the service. ``source`` is where it came from, for messages.

        Raises:
            ApplianceError: it is not valid (``BAD_BUNDLE``).
        """
        shown = folder if source is None else source
        fix = f"edge-reclass inspect {shown}   (or copy the bundle again)"
        command = [self.program.command, "inspect", str(folder), "--format", "json"]
        said = self.trial.require(command, f"{shown} is no valid bundle", fix, BAD_BUNDLE)
        try:
            bundle = json.loads(said)
            name = re.sub(r"[^A-Za-z0-9._-]", "_", bundle["name"]).lstrip(".") or "bundle"
            graphs = any(stage["encoder"]["kind"] == "waveform" for stage in bundle["stages"])
            return Inspected(f"{name}-{bundle['digest'][:12]}", graphs)
        except (ValueError, KeyError, TypeError) as error:
            raise ApplianceError(f"inspect said of {shown} what is not understood: {error}", fix, BAD_BUNDLE) from error

    def require_intact(self, name: str) -> Inspected:
        """An installed bundle has to be whole, and still the one that its folder's name says.

        A manifest that was changed has right hashes, and another digest.

        Raises:
            ApplianceError: it is not (``BAD_BUNDLE``).
        """
        found = self.inspect(self.folder / name)
        if found.name != name:
            raise ApplianceError(
                f"{self.folder / name}: its manifest was changed, which makes it {found.name}",
                "edge-reclass-appliance bundle install DIR_OR_TAR   with a good copy of it",
                BAD_BUNDLE,
            )
        return found

    def is_intact(self, name: str) -> bool:
        """As :meth:`require_intact`."""
        try:
            self.require_intact(name)
        except ApplianceError:
            return False
        return True

    def engines_in_place(self, folder: Path) -> bool:
        """Whether ``build`` would have nothing to do."""
        if not self._tensorrt:
            return True
        done = self.trial.run([*self._build(folder, self._engines), "--dry-run"])
        try:
            return all(stage["action"] in ("keep", "cpu") for stage in json.loads(done.stdout))
        except (ValueError, KeyError, TypeError):
            return False

    def ready(self, name: str) -> bool:
        """Whether nothing has to be done before an installed bundle is used."""
        return self.is_verified(name) and self.is_intact(name) and self.engines_in_place(self.folder / name)

    def prepare(self, folder: Path, found: Inspected, *, rebuild: bool = False) -> None:
        """Build engines for this device, and try every stage with its head: all of it as the service.

        Raises:
            ApplianceError: something could not be built, does not answer, or not as the references say
                (``BAD_BUNDLE``).
        """
        name = found.name
        fix = "edge-reclass-appliance bundle install DIR_OR_TAR   again, after what is said above was mended"
        say(f"trying bundle {name} on this device")
        engines = self._tensorrt and found.graphs

        def fill(work: Path) -> None:
            tone.write(work / _TONE)
            (work / _TONE).chmod(0o644)
            if engines:
                self._lend_engines(work / OUT / _ENGINES, rebuild=rebuild)

        with self.trial.folder(fill) as work:
            on = ["--device", "cpu"]
            if engines:
                store = work / OUT / _ENGINES
                command = [*self._build(folder, store), "--workspace", str(self.program.plan.limits.workspace_mib)]
                self.trial.require(
                    [*command, *(["--rebuild"] if rebuild else [])],
                    f"engines of {name} were not built",
                    fix,
                    BAD_BUNDLE,
                )
                on = ["--device", "tensorrt", "--engines", str(store)]
            verify = [self.program.command, "verify", str(folder), *on]
            self.trial.require(
                verify, f"bundle {name} does not answer on this device as its references say", fix, BAD_BUNDLE
            )
            self._classify(work, folder, on, fix)
            if engines:
                self.trial.take_back(work, _ENGINES, self._engines)

    def _classify(self, work: Path, folder: Path, on: Sequence[str], fix: str) -> None:
        """A file with made music, through a worker process and into a state file: all that a night's run does."""
        command = [self.program.command, "classify", str(work / _TONE), "--bundle", str(folder), *on, "--workers", "1"]
        command += ["--state", str(work / OUT / "trial.state"), "--format", "json", "--progress", "none"]
        said = self.trial.require(command, "a made track could not be classified", fix, BAD_BUNDLE)
        try:
            (verdict,) = json.loads(said)
            status = verdict["status"]
        except (ValueError, KeyError, TypeError):
            status = said[:200]
        if status not in ("ok", "unsure"):
            raise ApplianceError(
                f"a made track could not be classified: expected ok or unsure, got {status}", fix, BAD_BUNDLE
            )

    def _build(self, folder: Path, store: Path) -> list[str]:
        batch = str(self.program.plan.limits.batch)
        return [
            *(self.program.command, "build", str(folder), "--engines", str(store)),
            *("--max-batch", batch, "--format", "json"),
        ]

    def _lend_engines(self, store: Path, *, rebuild: bool) -> None:
        """A copy of the store that the service's user may write, with the same secret: so its records hold here."""
        if rebuild or not self._engines.is_dir():
            store.mkdir()
            if (self._engines / "secret").is_file():
                shutil.copy(self._engines / "secret", store / "secret")
        else:
            shutil.copytree(self._engines, store)
        for path in (store, *store.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o640 if path.name == "secret" else 0o644)

    def install(self, source: Path) -> str:
        """Bring a bundle in and verify it; gives its name. It is not switched to.

        Raises:
            ApplianceError: it is not valid or does not answer as it should here; nothing of it stays.
        """
        for left in self.folder.glob(".incoming.*"):  # by a power cut
            shutil.rmtree(left, ignore_errors=True)
        incoming = Path(tempfile.mkdtemp(prefix=".incoming.", dir=self.folder))
        incoming.chmod(0o755)
        try:
            folder = self._unpack(source, incoming)
            found = self.inspect(folder, source)
            name, there = found.name, self.folder / found.name
            good = there.is_dir() and self.is_intact(name)
            if good and self.is_verified(name) and self.engines_in_place(there):
                return name
            self.prepare(there if good else folder, found)
            if not good:
                files.sync_tree(folder)  # a power cut after the switch must not find empty files
                if there.exists():  # damaged, or it would have been taken as it is
                    there.replace(incoming / "damaged")
                folder.replace(there)
            files.write(self.folder / _VERIFIED / name, self.verified_for())
            return name
        except ApplianceError as error:
            raise self._stays(error) from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _unpack(self, source: Path, incoming: Path) -> Path:
        folder = incoming / "bundle"
        folder.mkdir(mode=0o755)
        unpacking.unpack(source, folder, without="engines", code=BAD_BUNDLE)  # engines never travel
        if (folder / "bundle.yaml").is_file():
            return folder
        inside = list(folder.glob("*/bundle.yaml"))  # an archive of the folder, not of what is in it
        if len(inside) != 1:
            raise ApplianceError(
                f"{source}: expected one bundle.yaml inside, found {len(inside) or 'none'}",
                f"tar -tf {source}",
                BAD_BUNDLE,
            )
        return inside[0].parent

    def again(self, name: str) -> None:
        """Verify an installed bundle again, and build its engines anew where the machine changed.

        Raises:
            ApplianceError: it is not whole, or does not answer as it should here any more.
        """
        found = self.require_intact(name)
        rebuild = self._tensorrt and self.another_machine(name)
        if rebuild:
            say(f"JetPack, TensorRT or the limits changed since {name} was verified: all engines are built again")
        self.prepare(self.folder / name, found, rebuild=rebuild)
        files.write(self.folder / _VERIFIED / name, self.verified_for())

    def switch(self, name: str) -> None:
        """Use a bundle; ``previous`` is set first, so that a power cut in between loses nothing that is in use."""
        before = self.named(CURRENT)
        if before and before != name:
            files.switch(self.folder / PREVIOUS, before)
        files.switch(self.folder / CURRENT, name)

    def require_usable(self, name: str) -> None:
        """An installed bundle, before it is switched to: whole, and verified here with what runs now.

        Raises:
            ApplianceError: it is not.
        """
        try:
            if self.require_intact(name) and not (self.is_verified(name) and self.engines_in_place(self.folder / name)):
                self.again(name)
        except ApplianceError as error:
            raise self._stays(error) from error

    def remove(self, name: str) -> None:
        """Delete a bundle that is neither in use nor the one before.

        Raises:
            ApplianceError: it is one of these, or not installed (``USAGE``).
        """
        self.require_installed(name)
        if name in (self.named(CURRENT), self.named(PREVIOUS)):
            raise usage(f"{name} is in use, or the one to go back to", "edge-reclass-appliance bundle use ANOTHER")
        gone = self.folder / f".incoming.{name}"  # so that half of it never looks like a bundle
        (self.folder / name).replace(gone)
        shutil.rmtree(gone, ignore_errors=True)
        (self.folder / _VERIFIED / name).unlink(missing_ok=True)

    def require_installed(self, name: str) -> None:
        """Raises ApplianceError (``USAGE``) where no bundle of that name is installed."""
        if name not in self.names():
            raise usage(f"no bundle {name!r} is installed", "edge-reclass-appliance bundle list")

    def _stays(self, error: ApplianceError) -> ApplianceError:
        stays = f"{error}; the bundle in use stays: {self.named(CURRENT) or 'none'}"
        return ApplianceError(stays, error.fix, error.code)
