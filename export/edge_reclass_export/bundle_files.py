"""Several files of a bundle written together: all bytes on the disk first, then each into its place."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_reclass.bundle import MANIFEST, Manifest, load
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_export.onnx_writer import write_bytes


def write_together(root: Path, contents: Mapping[str, bytes | Path]) -> None:
    """All bytes onto the disk beside their places, then each into its place in the order of ``contents``.

    A content that is a path is a file on the same disk, which is moved. What is too much for the disk, or cannot be
    written or moved, fails while the bundle that was there is whole, or is made whole again. Raises ``UsageError``
    then; nothing of it stays.
    """
    new_folders = list(_absent({(root / file).parent for file in contents}))
    waiting: list[tuple[Path, Path]] = []
    try:
        for file, content in contents.items():
            path = root / file
            if path.is_dir():
                raise UsageError(f"cannot write {path}: it is a directory")
            if isinstance(content, bytes):
                waiting.append((path.with_name(f".{path.name}.{os.getpid()}.new"), path))
                write_bytes(content, waiting[-1][0])
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                waiting.append((content, path))
        _into_place(waiting)
    finally:
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)  # renamed away where all went well
        for folder in new_folders:
            with contextlib.suppress(OSError):  # stays where something lies in it
                folder.rmdir()


def _into_place(waiting: Sequence[tuple[Path, Path]]) -> None:
    """Renames each pair; where one fails, what stood in the places before comes back."""
    kept: list[tuple[Path, Path]] = []
    new: list[Path] = []
    try:
        for temporary, path in waiting:
            if path.exists():
                old = path.with_name(f".{path.name}.{os.getpid()}.old")
                path.replace(old)
                kept.append((old, path))
            temporary.replace(path)
            new.append(path)
    except BaseException as error:
        for path in new:
            path.unlink(missing_ok=True)
        for old, place in kept:
            old.replace(place)
        if isinstance(error, OSError):
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    for old, _ in kept:
        old.unlink(missing_ok=True)


def bundle_name(root: Path) -> str:
    """The name of a bundle in the folder ``root``: that of the folder. Raises ``UsageError`` where it cannot be one."""
    name = root.resolve().name
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{printable(str(root))}: expected a name in UTF-8, as that of a bundle is") from error
    return name


def replaceable(root: Path, made: Callable[[Manifest], bool], what: str) -> list[str]:
    """Files of the bundle in the folder ``root``, which may be replaced; none where nothing is there yet.

    Args:
        made: whether a bundle is one that may be replaced
        what: it is, for people

    Raises:
        UsageError: something else lies there.
        BundleError: the bundle that lies there is not valid.
    """
    if (root / MANIFEST).is_file() and made(there := load(root).manifest):
        return [MANIFEST, *there.files]
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(
            f"{root}: expected no folder, an empty one or {what}; got something else; name a new folder with -o"
        )
    return []


@contextlib.contextmanager
def assembled(root: Path, files: Sequence[str]) -> Iterator[Path]:
    """A folder beside the bundle ``root`` to work in; what it holds at the end replaces the bundle's files.

    It begins with ``files`` of the bundle that is there, its manifest among them, and has the bundle's name. Where the
    work ends with an exception, the bundle is as it was. Raises ``UsageError`` where the folder cannot be made.
    """
    place = root.resolve()
    new_folders = list(_absent({place.parent}))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        above = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise UsageError(f"cannot assemble a bundle in {place.parent}: {error.strerror or error}") from error
    try:
        folder = above / place.name
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            _link(place / file, folder / file)
        yield folder
        made = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        changed = [file for file in made if not _same(folder / file, place / file)]
        ordered = sorted(changed, key=lambda file: file == MANIFEST)  # the manifest last
        write_together(place, {file: folder / file for file in ordered})
        delete_files(place, [file for file in files if file not in made])
    finally:
        shutil.rmtree(above, ignore_errors=True)
        for parent in new_folders:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no such thing; nothing writes into either in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _same(made: Path, there: Path) -> bool:
    return there.exists() and made.samefile(there)


def _absent(folders: set[Path]) -> Iterator[Path]:
    """Those of ``folders`` and the ones above them that are not there yet, the deepest first."""
    all_folders = {above for folder in folders for above in (folder, *folder.parents) if not above.exists()}
    return iter(sorted(all_folders, key=lambda folder: len(folder.parts), reverse=True))


def delete_files(root: Path, files: Sequence[str]) -> list[str]:
    """Deletes what the manifest no longer names; a note for each file that stays."""
    notes = []
    for file in files:
        try:
            (root / file).unlink(missing_ok=True)
        except OSError as error:
            notes.append(f"{root / file} is no longer used and could not be deleted: {error.strerror or error}")
    return notes
