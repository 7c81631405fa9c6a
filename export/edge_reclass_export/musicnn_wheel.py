"""The PyPI wheel ``musicnn`` 0.1.0 as an archive of weights: fetched by pip, read as a zip, never installed.

Its code needs TensorFlow and numpy < 1.17; nothing of it is imported. The label lists are literals in its
``configuration.py`` and are parsed, not run.
"""

from __future__ import annotations

import ast
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.onnx_writer import write_bytes
from edge_reclass_export.tensorflow_bundle import TensorBundle

WHEEL_REQUIREMENT: Final = "musicnn==0.1.0"
WHEEL_SHA256: Final = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"


class MusicnnWheel:
    """The contents of a wheel file.

    ``sha256`` is what the file must hash to; None accepts any file. Raises ``UsageError`` where there is no
    such file and ``CheckpointError`` where it is not the wheel.
    """

    def __init__(self, path: Path, sha256: str | None = WHEEL_SHA256) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read the wheel {path}: {error.strerror or error}") from error
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        if sha256 is not None and self.sha256 != sha256:
            raise CheckpointError(
                f"{path} has sha256 {self.sha256}, expected {sha256} ({WHEEL_REQUIREMENT} of PyPI);"
                f" fetch it again:  {_pip_command('.')}"
            )
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
        except zipfile.BadZipFile as error:
            raise CheckpointError(f"{path} is no wheel: {error}") from error

    def checkpoint(self, variant: str) -> TensorBundle:
        """The trained checkpoint of ``msd`` (Million Song Dataset) or ``mtt`` (MagnaTagATune)."""
        folder = f"musicnn/{variant.upper()}_musicnn"
        index = self._read(f"{folder}/.index")
        data = self._read(f"{folder}/.data-00000-of-00001")
        return TensorBundle(index, data, f"{self.path.name}:{folder}")

    def tag_names(self, variant: str) -> tuple[str, ...]:
        """Names of the 50 tags, in the order of the output ``tags``."""
        member = "musicnn/configuration.py"
        name = f"{variant.upper()}_LABELS"
        try:
            statements = ast.parse(self._read(member)).body
            for statement in statements:
                if isinstance(statement, ast.Assign) and [
                    target.id for target in statement.targets if isinstance(target, ast.Name)
                ] == [name]:
                    labels = ast.literal_eval(statement.value)
                    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
                        return tuple(labels)
        except (SyntaxError, ValueError) as error:
            raise CheckpointError(f"{self.path}: {member} is not readable: {error}") from error
        raise CheckpointError(f"{self.path}: {member} has no list of names {name}")

    def licence(self) -> str:
        """The licence text that has to travel with the weights."""
        return self._read("musicnn-0.1.0.dist-info/LICENSE.md").decode("utf-8")

    def _read(self, member: str) -> bytes:
        try:
            return self._archive.read(member)
        except KeyError as error:
            raise CheckpointError(f"{self.path} holds no {member}: it is not {WHEEL_REQUIREMENT}") from error
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise CheckpointError(f"{self.path}: {member} is corrupt: {error}; fetch the wheel again") from error


def fetch_wheel(keep: Path | None = None) -> MusicnnWheel:
    """Downloads the wheel with pip, without its dependencies, and checks its sha256; ``keep`` is where to store it.

    Raises ``UsageError`` with pip's own last line where it cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="edge-reclass-musicnn-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", folder, WHEEL_REQUIREMENT]
        try:
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UsageError(f"cannot run pip to fetch {WHEEL_REQUIREMENT}: {error}") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if finished.returncode != 0 or len(wheels) != 1:
            lines = finished.stderr.strip().splitlines() or [f"pip ended with {finished.returncode}"]
            raise UsageError(
                f"pip could not fetch {WHEEL_REQUIREMENT}: {lines[-1]}\n"
                f"Where there is a network:  {_pip_command('.')}  and then give the file with --wheel"
            )
        wheel = MusicnnWheel(wheels[0])
        if keep is not None:
            write_bytes(wheels[0].read_bytes(), keep)
        return wheel


def _pip_command(folder: str) -> str:
    return f"pip download --no-deps --dest {folder} {WHEEL_REQUIREMENT}"
