"""What a run was asked for; handed to the stages' processes as JSON. Standard library only, for setup's sake."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["BATCHES", "TINY_BATCHES", "Settings"]

BATCHES = (1, 6, 24, 96)
TINY_BATCHES = (1, 6)


@dataclass(frozen=True)
class Settings:
    """One run.

    ``deadline`` is the time (seconds since the epoch) at which a stage begins nothing new. ``tiny`` tests the script:
    small networks, few runs. ``compile_mode`` is torch.compile's; empty leaves that contender out.
    """

    state: Path
    out: Path
    device: str
    tiny: bool
    carry: tuple[Path, ...] = ()
    batches: tuple[int, ...] = BATCHES
    encoders: tuple[str, ...] = ()
    seconds: float = 3.0
    compile_mode: str = "reduce-overhead"
    jobs: tuple[int, ...] = (1, 8, 16)
    tracks: int = 96
    deadline: float = 0.0

    @property
    def label(self) -> str:
        """What the numbers are; stands over every table."""
        if self.tiny or self.device == "cpu":
            size = "tiny" if self.tiny else "full size"
            return f"device: {self.device}, {size}: a test of the script, not a measurement"
        return f"device: {self.device}"

    @property
    def site(self) -> Path:
        """Where the carried packages are installed."""
        return self.state / "site"

    @property
    def bundle(self) -> Path:
        """The bundle that the stage ``export`` makes."""
        return self.state / "bundle"

    def to_json(self) -> str:
        plain = {key: _plain(value) for key, value in asdict(self).items()}
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        plain: dict[str, Any] = json.loads(text)
        for field in fields(cls):
            value = plain[field.name]
            if field.name in ("state", "out"):
                plain[field.name] = Path(value)
            elif field.name == "carry":
                plain[field.name] = tuple(Path(each) for each in value)
            elif isinstance(value, list):
                plain[field.name] = tuple(value)
        return cls(**plain)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
