"""systemctl, on this machine or on the folder of a test or an image."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance.errors import ApplianceError


@dataclass(frozen=True)
class Services:
    """The machine's units; under another ``root`` they can only be enabled."""

    root: Path

    @property
    def live(self) -> bool:
        """Whether systemd runs here."""
        return self.root == Path("/") and Path("/run/systemd/system").is_dir()

    def require(self) -> None:
        """There has to be a systemctl. Raises ApplianceError where there is none."""
        if shutil.which("systemctl") is None:
            raise ApplianceError(
                "systemctl was not found: edge-reclass runs as a systemd service",
                "provision.sh --no-units …   leaves it out",
            )

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run systemctl, whatever it answers."""
        where = [] if self.root == Path("/") else [f"--root={self.root}"]
        command = ["systemctl", *where, *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            return subprocess.CompletedProcess(command, 127, "", str(error))

    def do(self, *arguments: str) -> None:
        """Run systemctl, which has to succeed.

        Raises:
            ApplianceError: it did not.
        """
        done = self.ask(*arguments)
        if done.returncode != 0:
            words = " ".join(arguments)
            raise ApplianceError(f"systemctl {words} failed: {done.stderr.strip()}", f"systemctl {words}")

    def enabled(self, unit: str) -> bool:
        """Whether a unit is started by itself."""
        return self.ask("is-enabled", unit).stdout.strip() == "enabled"

    def active(self, unit: str) -> bool:
        """Whether a unit runs, or is about to."""
        return self.live and self.ask("is-active", unit).returncode == 0

    def behind(self, units: list[str]) -> bool:
        """Whether systemd has not read its units again since they were written."""
        return self.live and "yes" in self.ask("show", "--property=NeedDaemonReload", "--value", *units).stdout

    def start(self, unit: str) -> None:
        """Start a unit, or start it again, and wait until it is ready; earlier failures do not count.

        Raises:
            ApplianceError: it does not start.
        """
        if not self.live:
            return
        self.ask("reset-failed", unit)
        done = self.ask("restart", unit)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise ApplianceError(
                f"{unit} does not start{': ' + said[0] if said else ''}", f"journalctl -u {unit} -n 30   (says why)"
            )
