"""What a machine is, what code ran, and that a record holds nobody's folders."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_reclass_bench.environment import beginning, code_sha256, environment, identity, probe

X86 = """vendor_id : AuthenticAMD
cpu family : 25
model : {model}
model name : AMD EPYC
stepping : 1
flags : fpu sse2 avx avx2 fma{more}

vendor_id : of the second processor
"""
ARM = """processor : 0
Features : fp asimd asimdhp
CPU implementer : 0x41
CPU part : 0xd42
CPU variant : 0x0
CPU revision : 1
"""


def fake_root(folder: Path, cpuinfo: str, caches: dict[str, tuple[str, str]] | None = None) -> Path:
    (folder / "proc").mkdir(parents=True)
    (folder / "proc/cpuinfo").write_text(cpuinfo)
    for i, (level, (kind, size)) in enumerate((caches or {"2": ("Unified", "512K")}).items()):
        index = folder / f"sys/devices/system/cpu/cpu0/cache/index{i}"
        index.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (index / name).write_text(f"{text}\n")
    return folder


@pytest.fixture(scope="module")
def probed() -> dict[str, Any]:
    return probe()


def test_two_processors_of_one_name_are_two_machines(probed: dict[str, Any], tmp_path: Path) -> None:
    old = identity(probed, fake_root(tmp_path / "old", X86.format(model=1, more="")))
    new = identity(probed, fake_root(tmp_path / "new", X86.format(model=17, more=" avx512f")))
    assert old.cpu == "AMD EPYC (AuthenticAMD family 25 model 1 stepping 1)"
    assert new.cpu == "AMD EPYC (AuthenticAMD family 25 model 17 stepping 1)"
    assert old.instructions == ["avx", "avx2", "fma"]
    assert "avx512f" in new.instructions


def test_an_arm_processor_and_its_caches(probed: dict[str, Any], tmp_path: Path) -> None:
    root = fake_root(tmp_path, ARM, {"1": ("Data", "64K"), "3": ("Unified", "2048K")})
    found = identity(probed, root)
    assert found.cpu == "0x41 (0x41 part 0xd42 variant 0x0 revision 1)"
    assert found.instructions == ["asimd", "asimdhp"]
    assert found.caches == ["L1d 64K", "L3 2048K"]


@pytest.mark.parametrize(
    ("cpu", "gpu", "expected"),
    [
        ((1510, 1510), (918, 918), "locked at 1510 MHz, GPU locked at 918 MHz"),
        ((115, 1510), (306, 918), "115 to 1510 MHz, GPU 306 to 918 MHz"),
        (None, None, None),
    ],
)
def test_clocks_are_those_of_processor_and_gpu(
    probed: dict[str, Any], tmp_path: Path, cpu: Any, gpu: Any, expected: str | None
) -> None:
    made = copy.deepcopy(probed)

    def limits(pair: tuple[int, int] | None) -> list[dict[str, Any]]:
        return [] if pair is None else [{"min_mhz": pair[0], "max_mhz": pair[1], "governor": None}]

    made["cpu"]["policies"] = limits(cpu)
    made["jetson"] = {"model": "Made board", "power_mode": {"name": "15W"}, "gpu_clocks": limits(gpu)}
    found = identity(made, fake_root(tmp_path, ARM))
    assert (found.clocks, found.power_mode, found.board) == (expected, "15W", "Made board")


def test_the_digest_is_of_the_modules_that_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "made_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_sha256(["made_package"])
    assert code_sha256(["made_package"]) == before
    (package / "a.py").write_text("x = 2\n")
    assert code_sha256(["made_package"]) != before


def test_a_record_holds_nobodys_folders() -> None:
    made = environment(beginning(), ["/home/somebody/bin/edge-reclass", "--labels=/home/somebody/l.csv", "a/b.mp3"])
    assert made["command"] == ["edge-reclass", "--labels=l.csv", "a/b.mp3"]
    assert sys.prefix not in str(made)
