"""From wheels to a carried folder and into a folder of packages, without a network; pruning of made fat binaries."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gpu_check.setup import SUMS, SetupError, install

CARRY = Path(__file__).resolve().parents[2] / "benchmarks" / "carry"


def entry(architecture: int, payload: bytes, header: int = 64) -> bytes:
    head = struct.pack("<HHIQ", 2, 0x101, header, len(payload))
    head += bytes(28 - len(head)) + struct.pack("<I", architecture)
    return head + b"\x11" * (header - len(head)) + payload


def region(*parts: bytes, version: int = 1) -> bytes:
    body = b"".join(parts)
    return struct.pack("<IHHQ", 0xBA55ED50, version, 16, len(body)) + body


def code(architecture: int, length: int = 5000) -> bytes:
    return bytes([architecture % 251 + 1]) * length


def noise(length: int) -> bytes:
    """Incompressible, so that sizes are what they seem."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(length // 32))


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A wheel of ``name`` 1.0 for any Python."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{file},sha256={digest(content)},{len(content)}" for file, content in files.items()]
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as out:
        for file, content in files.items():
            out.writestr(file, content)
        out.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def pack(wheels: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CARRY / "pack.py"), str(wheels), str(target), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A small wheel, and a large one with device code for two GPUs and with what only looks like some."""
    folder = tmp_path / "wheels"
    wheel(folder, "small", {"small_package/__init__.py": b"answer = 42\n"})
    lookalike = region(entry(80, b"lookalike" * 9), version=2)
    shared = b"\x7fELF" + region(entry(80, code(80)), entry(90, code(90))) + lookalike + noise(3 << 20)
    wheel(folder, "large", {"large_package/lib.so.1": shared, "large_package/tools/x.py": b"x"})
    return folder


def test_what_is_carried_is_pruned_counted_and_installed(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "one.tar.xz").write_bytes(b"graph")
    carry, site = tmp_path / "carry", tmp_path / "state" / "site"
    done = pack(wheels, carry, "--without", "large_package/tools/*", "--graphs", str(tmp_path / "graphs"))
    assert done.returncode == 0, done.stderr
    assert "of 64 MiB" in done.stdout and "with the checkout's" in done.stdout
    assert len((carry / SUMS).read_text().splitlines()) == 3 and (carry / "graphs" / "one.tar.xz").exists()
    install([carry], site)
    installed = (site / "large_package" / "lib.so.1").read_bytes()
    assert code(90) in installed and code(80) not in installed and b"lookalike" * 9 in installed
    assert (site / "small_package" / "__init__.py").exists() and not (site / "large_package" / "tools").exists()
    assert f"large_package/lib.so.1,sha256={digest(installed)}" in (site / "large-1.0.dist-info" / "RECORD").read_text()
    altered = next(carry.glob("large*"))
    altered.write_bytes(altered.read_bytes()[:-1])
    with pytest.raises(SetupError, match=r"large.*expected sha256"):
        install([carry], site)
    (carry / SUMS).unlink()
    with pytest.raises(SetupError, match=r"make_carry\.sh"):
        install([carry], site)


def test_more_than_a_call_carries_is_refused(wheels: Path, tmp_path: Path) -> None:
    done = pack(wheels, tmp_path / "carry", "--limit", "10")
    assert done.returncode != 0 and "nothing was written" in done.stderr
    assert not (tmp_path / "carry").exists()


def test_a_library_without_code_for_the_gpu_stops_the_packing(wheels: Path, tmp_path: Path) -> None:
    done = pack(wheels, tmp_path / "carry", "--keep", "75")
    assert done.returncode != 0 and "no device code for [75]: the library has [80, 90]" in done.stderr
    assert not (tmp_path / "carry").exists()
