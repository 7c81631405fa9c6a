"""Several files of a bundle written together: all bytes on the disk first, then each into its place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge_reclass.errors import UsageError
from edge_reclass_export.onnx_writer import write_bytes

__all__ = ["delete_files", "write_together"]


def write_together(root: Path, contents: Mapping[str, bytes]) -> None:
    """All bytes onto the disk beside their places, then each into its place in the order of ``contents``.

    What is too much for the disk, or cannot be written, so fails while the bundle that was there is whole.
    Raises ``UsageError`` then; nothing of it stays.
    """
    new_folders = list(_absent({(root / file).parent for file in contents}))
    waiting: list[tuple[Path, Path]] = []
    try:
        for file, content in contents.items():
            path = root / file
            if path.is_dir():
                raise UsageError(f"cannot write {path}: it is a directory")
            waiting.append((path.with_name(f".{path.name}.{os.getpid()}.new"), path))
            write_bytes(content, waiting[-1][0])
        for temporary, path in waiting:
            try:
                temporary.replace(path)
            except OSError as error:
                raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)  # renamed away where all went well
        for folder in new_folders:
            with contextlib.suppress(OSError):  # stays where something lies in it
                folder.rmdir()


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
