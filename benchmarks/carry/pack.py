"""Makes a set to carry out of a folder of wheels: pruned, compressed, cut to size, with sums.

    python pack.py WHEELS SET [--keep 90] [--without PATTERN]… [--limit MIB]

``SET``, ``SET-2``, … are made, each at most ``--limit`` MiB. A wheel of more than a MiB is written anew without
compression inside (its libraries pruned to the kept architectures, its RECORD right again) and compressed as a whole
with xz, which does far better than zip. Its name gets the build tag ``0sm90``, so that nobody takes it for the
original.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import lzma
import shutil
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from prune_cubins import prune

__all__ = ["pack", "repack"]

SUMS = "SHA256SUMS"
_LARGE = 1 << 20
_FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20},
]


def repack(wheel: Path, folder: Path, keep: frozenset[int], without: list[str]) -> Path:
    """The wheel without the files of ``without``, pruned, its contents stored as they are; gives the new file."""
    name, version, *tags = wheel.name.removesuffix(".whl").split("-")
    architectures = ".".join(str(each) for each in sorted(keep))
    target = folder / f"{'-'.join([name, version, f'0sm{architectures}', *tags[-3:]])}.whl"
    record: list[str] = []
    left_out: list[int] = []
    record_name = ""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for info in source.infolist():
            if info.filename.endswith("/RECORD"):
                record_name = info.filename
                continue
            if any(fnmatch(info.filename, pattern) for pattern in without):
                left_out.append(info.file_size)
                continue
            content = bytearray(source.read(info))
            if ".so" in Path(info.filename).name:
                found = prune(content, keep)
                if found.emptied:
                    print(
                        f"  {info.filename}: kept {found.kept / 2**20:.1f} MiB of device code,"
                        f" emptied {found.emptied / 2**20:.1f} MiB"
                    )
            out.writestr(info, bytes(content), zipfile.ZIP_STORED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{info.filename},sha256={digest},{len(content)}")
        if not record_name:
            raise ValueError(f"{wheel}: no RECORD, so no wheel")
        record.append(f"{record_name},,")
        out.writestr(record_name, "\n".join(record) + "\n")
    if left_out:
        print(f"  left out: {len(left_out)} files, {sum(left_out) / 2**20:.1f} MiB")
    return target


def pack(wheels: list[Path], target: Path, keep: frozenset[int], without: list[str], limit: int) -> list[Path]:
    """Write the set, or as many as ``limit`` bytes each demand; gives their folders."""
    pieces: list[Path] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in [target, *target.parent.glob(f"{target.name}-[0-9]")]:
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch)
        for wheel in wheels:
            if wheel.stat().st_size < _LARGE:
                pieces.append(Path(shutil.copy(wheel, folder)))
                continue
            print(wheel.name)
            pieces += _cut(_compressed(repack(wheel, folder, keep, without)), limit)
        return _distributed(sorted(pieces, key=lambda piece: -piece.stat().st_size), target, limit)


def _compressed(wheel: Path) -> Path:
    target = wheel.with_name(wheel.name + ".xz")
    with wheel.open("rb") as source, lzma.open(target, "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as out:
        shutil.copyfileobj(source, out, 1 << 20)
    wheel.unlink()
    return target


def _cut(file: Path, limit: int) -> list[Path]:
    count = -(-file.stat().st_size // limit)
    if count == 1:
        return [file]
    length = -(-file.stat().st_size // count)
    parts = []
    with file.open("rb") as source:
        for number in range(count):
            part = file.with_name(f"{file.name}.part-{number}-of-{count}")
            part.write_bytes(source.read(length))
            parts.append(part)
    file.unlink()
    return parts


def _distributed(pieces: list[Path], target: Path, limit: int) -> list[Path]:
    """The largest first, each into the first set that has room for it."""
    sets: list[tuple[Path, int]] = []
    for piece in pieces:
        size = piece.stat().st_size
        for number, (folder, used) in enumerate(sets):
            if used + size <= limit:
                sets[number] = (folder, used + size)
                break
        else:
            folder = target if not sets else target.with_name(f"{target.name}-{len(sets) + 1}")
            folder.mkdir()
            sets.append((folder, size))
        shutil.move(piece, folder / piece.name)
    for folder, used in sets:
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
        (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="ascii")
        print(f"== {folder.name}: {used / 2**20:.1f} MiB")
        for line in lines:
            print(f"   {line}  {(folder / line.partition('  ')[2]).stat().st_size / 2**20:.2f} MiB")
    return [folder for folder, _ in sets]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder of wheels")
    parser.add_argument("set", type=Path, help="folder to make")
    parser.add_argument("--keep", default="90", help="architectures whose code stays, such as 90 or 80,90")
    parser.add_argument("--without", action="append", default=[], help="files to leave out")
    parser.add_argument("--limit", type=float, default=28.0, help="MiB of one set")
    options = parser.parse_args()
    wheels = sorted(options.wheels.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"{options.wheels}: no wheels")
    keep = frozenset(int(part) for part in options.keep.split(","))
    pack(wheels, options.set, keep, options.without, int(options.limit * 2**20))


if __name__ == "__main__":
    main()
