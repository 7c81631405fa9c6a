"""How many CPUs count: a quota of the control group, in both of the kernel's forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_reclass.host import cpus


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "odd"}, None),
        ({}, None),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert cpus.quota_cpus(tmp_path) == quota


def test_a_quota_limits_the_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    free = cpus.usable_cpus()
    monkeypatch.setattr(cpus, "quota_cpus", lambda _: 0.5)
    assert cpus.usable_cpus() == 1
    monkeypatch.setattr(cpus, "quota_cpus", lambda _: 1000.0)
    assert cpus.usable_cpus() >= free
