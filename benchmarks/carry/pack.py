"""Makes one folder to carry: wheels pruned and compressed, graphs, sums; refuses more than a call can carry.

    python pack.py WHEELS FOLDER [--graphs DIR] [--keep 90] [--without PATTERN]… [--limit MIB]

A wheel of more than a MiB is written anew without compression inside (its libraries pruned to the kept architectures,
its RECORD right again) and compressed as a whole with xz, which does far better than zip. Its name gets the build tag
``0sm90``, so that nobody takes it for the original. The checkout travels too, and counts.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import lzma
import shutil
import subprocess
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from prune_cubins import prune

SUMS = "SHA256SUMS"
_LARGE = 1 << 20
_MIB = 1 << 20
_FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 << 20},
]


def repack(wheel: Path, folder: Path, keep: frozenset[int], without: list[str]) -> Path:
    """The wheel without the files of ``without``, pruned, its contents stored as they are; gives the new file."""
    name, version, *tags = wheel.name.removesuffix(".whl").split("-")
    architectures = ".".join(str(each) for each in sorted(keep))
    target = folder / f"{'-'.join([name, version, f'0sm{architectures}', *tags[-3:]])}.whl"
    record: list[str] = []
    record_name, left_out = "", 0
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for info in source.infolist():
            if info.filename.endswith("/RECORD"):
                record_name = info.filename
                continue
            if any(fnmatch(info.filename, pattern) for pattern in without):
                left_out += info.file_size
                continue
            content = bytearray(source.read(info))
            if ".so" in Path(info.filename).name:
                kept, emptied = (size / _MIB for size in prune(content, keep))
                if emptied:
                    print(f"  {info.filename}: kept {kept:.1f} MiB of device code, emptied {emptied:.1f} MiB")
            out.writestr(info, bytes(content), zipfile.ZIP_STORED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{info.filename},sha256={digest},{len(content)}")
        if not record_name:
            raise ValueError(f"{wheel}: no RECORD, so no wheel")
        record.append(f"{record_name},,")
        out.writestr(record_name, "\n".join(record) + "\n")
    print(f"  left out: {left_out / _MIB:.1f} MiB")
    return target


def pack(
    wheels: list[Path], target: Path, keep: frozenset[int], without: list[str], graphs: Path | None, room: int
) -> int:
    """Write the folder, which appears whole or not at all; gives its bytes.

    Raises:
        SystemExit: it would have more than ``room`` bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        for wheel in wheels:
            if wheel.stat().st_size < _LARGE:
                shutil.copy(wheel, folder)
                continue
            print(wheel.name)
            new = repack(wheel, Path(scratch), keep, without)
            with new.open("rb") as source, lzma.open(folder / f"{new.name}.xz", "wb", filters=_FILTERS) as out:
                shutil.copyfileobj(source, out, 1 << 20)
            new.unlink()
        if graphs is not None:
            shutil.copytree(graphs, folder / "graphs")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in files]
        for path in files:
            print(f"  {path.stat().st_size / _MIB:6.2f} MiB  {path.relative_to(folder)}")
        (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="ascii")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if size > room:
            raise SystemExit(
                f"{target}: {size / _MIB:.1f} MiB, and there is room for {room / _MIB:.1f}; nothing was written"
            )
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return size


def checkout_bytes(root: Path) -> int:
    """What travels of a checkout: files that are tracked, or neither tracked nor ignored."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return sum((root / name).stat().st_size for name in names if name and (root / name).is_file())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder of wheels")
    parser.add_argument("folder", type=Path, help="what to make")
    parser.add_argument("--graphs", type=Path, help="what graphs.py made")
    parser.add_argument("--keep", default="90", help="architectures whose code stays, such as 90 or 80,90")
    parser.add_argument("--without", action="append", default=[], help="files to leave out")
    parser.add_argument("--limit", type=float, default=64.0, help="MiB of one call, the checkout included")
    options = parser.parse_args()
    wheels = sorted(options.wheels.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"{options.wheels}: no wheels")
    checkout = checkout_bytes(Path(__file__).resolve().parents[2])
    keep = frozenset(int(part) for part in options.keep.split(","))
    room = int(options.limit * _MIB) - checkout
    size = pack(wheels, options.folder, keep, options.without, options.graphs, room)
    print(
        f"== {options.folder}: {size / _MIB:.1f} MiB; with the checkout's {checkout / _MIB:.1f} MiB"
        f" {(size + checkout) / _MIB:.1f} of {options.limit:g} MiB"
    )


if __name__ == "__main__":
    main()
