"""The first GPU as an emulated CUDA driver reports it, and why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.machine.emulator import FakeCuda, libraries
from edge_reclass.errors import DeviceError
from edge_reclass.host.gpu import Gpu, probe_gpu

TEGRA = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"


@pytest.mark.parametrize(
    ("file", "text", "driver"),
    [
        ("etc/nv_tegra_release", TEGRA, "l4t-36.4.3"),
        ("proc/driver/nvidia/version", OPEN, "driver-580.95.05"),
        ("proc/driver/nvidia/version", CLOSED, "driver-535.183.01"),
        ("proc/driver/nvidia/version", "something else\n", "cuda-12.6"),
        (None, "", "cuda-12.6"),
    ],
)
def test_probe(file: str | None, text: str, driver: str, tmp_path: Path) -> None:
    if file is not None:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    assert probe_gpu(tmp_path, libraries(FakeCuda())) == Gpu("Orin", "8.7", driver)


def test_probe_says_why_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"driver cannot be loaded .*no-such-lib"):
        probe_gpu(tmp_path, libraries())
    with pytest.raises(DeviceError, match=r"counts none.*CUDA_VISIBLE_DEVICES"):
        probe_gpu(tmp_path, libraries(FakeCuda(devices=0)))
    with pytest.raises(DeviceError, match="cuInit gives CUDA error 100"):
        probe_gpu(tmp_path, libraries(FakeCuda(statuses={"cuInit": 100})))


def test_what_an_older_driver_does_not_answer_is_none(tmp_path: Path) -> None:
    older = probe_gpu(tmp_path, libraries(FakeCuda(statuses={"cuDeviceTotalMem_v2": 1, "cuDeviceGetPCIBusId": 1})))
    assert (older.memory_bytes, older.pci_bus, older.name, older.integrated) == (None, None, "Orin", True)
