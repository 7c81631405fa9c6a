"""From wheels to a carried set and into a folder of packages, without a network; the pruning on made fat binaries."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpu_check.journal import NotHere
from gpu_check.setup import SUMS, install_set, missing

CARRY = Path(__file__).resolve().parents[2] / "benchmarks" / "carry"
MAGIC = 0xBA55ED50


@pytest.fixture(scope="module")
def prune_cubins() -> Iterator[ModuleType]:
    """The script as a module; it stands in no package."""
    spec = importlib.util.spec_from_file_location("prune_cubins", CARRY / "prune_cubins.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prune_cubins"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["prune_cubins"]


def entry(architecture: int, payload: bytes, *, kind: int = 2, header: int = 64) -> bytes:
    head = struct.pack("<HHIQ", kind, 0x101, header, len(payload))
    head += bytes(28 - len(head)) + struct.pack("<I", architecture)
    return head + b"\x11" * (header - len(head)) + payload


def region(*parts: bytes, version: int = 1, header: int = 16) -> bytes:
    body = b"".join(parts)
    return struct.pack("<IHHQ", MAGIC, version, header, len(body)) + body


def code(architecture: int, length: int = 100) -> bytes:
    return bytes([architecture % 251 + 1]) * length


def library(*parts: bytes) -> bytearray:
    """Other sections around and between the regions."""
    return bytearray(b"\x7fELF" + b"text" * 50 + b"between".join(parts) + b"data" * 20)


def test_other_architectures_become_zeros_and_nothing_else_changes(prune_cubins: ModuleType) -> None:
    kept, emptied = code(90, 120), code(80, 333)
    before = library(region(entry(80, emptied), entry(90, kept)), region(entry(120, code(120)), entry(90, code(90, 7))))
    after = bytearray(before)
    found = prune_cubins.prune(after, frozenset({90}))
    assert (found.kept, found.kept_entries, found.emptied, found.emptied_entries) == (127, 2, 433, 2)
    expected = bytes(before).replace(emptied, bytes(333)).replace(code(120), bytes(100))
    assert bytes(after) == expected and len(after) == len(before)


def test_several_architectures_can_be_kept(prune_cubins: ModuleType) -> None:
    data = library(region(entry(80, code(80)), entry(86, code(86)), entry(90, code(90))))
    found = prune_cubins.prune(data, frozenset({80, 90}))
    assert found.kept == 200 and code(80) in data and code(86) not in data and code(90) in data


def test_ptx_of_another_architecture_goes_too(prune_cubins: ModuleType) -> None:
    data = library(region(entry(121, b".version 9.0 .target sm_121", kind=1), entry(90, code(90))))
    prune_cubins.prune(data, frozenset({90}))
    assert b".target" not in data


def test_a_library_without_the_wanted_code_is_refused_as_it_is(prune_cubins: ModuleType) -> None:
    data = library(region(entry(80, code(80)), entry(86, code(86))))
    before = bytes(data)
    with pytest.raises(ValueError, match=r"no device code for \[90\]: the library has \[80, 86\]"):
        prune_cubins.prune(data, frozenset({90}))
    assert bytes(data) == before


@pytest.mark.parametrize(
    "lookalike",
    [
        region(entry(80, code(80)), version=2),
        region(entry(80, code(80)), header=24),
        struct.pack("<IHHQ", MAGIC, 1, 16, 1 << 40),
        struct.pack("<I", MAGIC),
        region(struct.pack("<HHIQ", 2, 0x101, 8, 4) + bytes(60)),
    ],
    ids=["version", "header", "size beyond the file", "cut off", "entry header too small"],
)
def test_what_only_looks_like_a_fat_binary_is_left_alone(prune_cubins: ModuleType, lookalike: bytes) -> None:
    data = library(lookalike, region(entry(90, code(90)), entry(75, code(75))))
    prune_cubins.prune(data, frozenset({90}))
    assert lookalike in data and code(90) in data and code(75) not in data


def test_a_file_without_device_code_is_copied(prune_cubins: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "a.so", tmp_path / "b.so"
    source.write_bytes(library())
    found = prune_cubins.prune_file(source, target, frozenset({90}))
    assert target.read_bytes() == source.read_bytes() and found.kept == found.emptied == 0


def test_a_file_is_pruned_in_its_copy_only(prune_cubins: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "a.so", tmp_path / "b.so"
    content = library(region(entry(80, code(80)), entry(90, code(90))))
    source.write_bytes(content)
    prune_cubins.main([str(source), str(target), "90"])
    assert source.read_bytes() == content
    assert code(80) not in target.read_bytes() and target.stat().st_size == len(content)


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A wheel of ``name`` 1.0 for any Python."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{file},sha256={digest(content)},{len(content)}" for file, content in files.items()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file, content in files.items():
            out.writestr(file, content)
        out.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))
    return path


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def noise(length: int) -> bytes:
    """Incompressible, so that sizes are what they seem."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(length // 32))


def pack(wheels: Path, target: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(CARRY / "pack.py"), str(wheels), str(target), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small wheel, and a large one with device code for two GPUs, in sets of at most 2 MiB."""
    tmp_path = tmp_path_factory.mktemp("packed")
    wheels = tmp_path / "wheels"
    wheel(wheels, "small", {"small_package/__init__.py": b"answer = 42\n"})
    shared = library(region(entry(80, code(80, 5000)), entry(90, code(90, 5000)))) + noise(3 << 20)
    wheel(
        wheels,
        "large",
        {"large_package/__init__.py": b"", "large_package/lib.so.1": bytes(shared), "large_package/tools/x.py": b"x"},
    )
    said = pack(wheels, tmp_path / "gpu", "--limit", "2", "--without", "large_package/tools/*")
    assert "left out: 1 files" in said and "emptied 0.0 MiB" in said
    found = sorted(tmp_path.glob("gpu*"))
    assert all(sum(file.stat().st_size for file in folder.iterdir()) < 2.1 * 2**20 for folder in found)
    return found


@pytest.fixture
def sets(packed: list[Path], tmp_path: Path) -> list[Path]:
    """A copy of the sets that may be spoiled."""
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in packed]


def test_a_set_that_is_too_large_is_cut_and_comes_together_again(sets: list[Path], tmp_path: Path) -> None:
    site = tmp_path / "state" / "site"
    assert len(sets) == 2
    with pytest.raises(NotHere, match=r"large-1.0-0sm90.*: 1 of 2 parts are here"):
        install_set(sets[0], site)
    assert not (site / "large_package").exists()
    install_set(sets[1], site)
    installed = (site / "large_package" / "lib.so.1").read_bytes()
    assert code(90, 5000) in installed and code(80, 5000) not in installed
    assert noise(3 << 20) in installed
    assert not (site / "large_package" / "tools").exists()
    assert (site / "small_package" / "__init__.py").read_text() == "answer = 42\n"
    lines = (site / "large-1.0.dist-info" / "RECORD").read_text().splitlines()
    recorded = {line.split(",")[0]: line.split(",")[1] for line in lines}
    assert recorded["large_package/lib.so.1"] == f"sha256={digest(installed)}"


def test_an_altered_set_is_refused(sets: list[Path], tmp_path: Path) -> None:
    file = next(file for file in sets[0].iterdir() if file.name != SUMS)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="expected sha256"):
        install_set(sets[0], tmp_path / "state" / "site")
    file.unlink()
    with pytest.raises(ValueError, match="is missing"):
        install_set(sets[0], tmp_path / "state" / "site")
    (sets[0] / SUMS).unlink()
    with pytest.raises(ValueError, match=r"make_carry\.sh"):
        install_set(sets[0], tmp_path / "state" / "site")


def test_what_is_missing_is_named_with_the_reason() -> None:
    found = missing({"json": "json", "no_such_package_at_all": "its-distribution"})
    assert len(found) == 1 and found[0].startswith("its-distribution (ModuleNotFoundError")


def test_a_library_without_code_for_the_gpu_stops_the_packing(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    shared = library(region(entry(80, code(80)))) + noise(3 << 20)
    wheel(wheels, "large", {"large_package/lib.so": bytes(shared)})
    done = subprocess.run(
        [sys.executable, str(CARRY / "pack.py"), str(wheels), str(tmp_path / "gpu")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "no device code for [90]" in done.stderr
    assert not (tmp_path / "gpu").exists()


def test_the_sums_are_those_of_the_files(sets: list[Path]) -> None:
    for folder in sets:
        for line in (folder / SUMS).read_text().splitlines():
            expected, name = line.split("  ")
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert [folder.name for folder in sets] == ["gpu", "gpu-2"]
