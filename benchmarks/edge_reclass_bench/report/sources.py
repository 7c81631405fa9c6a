"""Records with the tags under which a report names them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.errors import UsageError
from edge_reclass_bench.books import Books
from edge_reclass_bench.journal import read as read_partial
from edge_reclass_bench.record import KIND, load


@dataclass(frozen=True)
class Source:
    """One record, the file's ``name``, and its ``tag`` (A, B, …), which is empty where there is only one record."""

    name: str
    books: Books
    tag: str = ""


def read(files: Sequence[Path]) -> list[Source]:
    """The records of ``files``; one that ends with ``.partial`` is what a run left that was killed.

    Raises:
        UsageError: a file cannot be read (see ``record.load``).
    """
    records = [read_partial(file) if file.suffix == ".partial" else load(file) for file in files]
    return [
        Source(file.name, Books(record), _tag(i) if len(records) > 1 else "")
        for i, (file, record) in enumerate(zip(files, records, strict=True))
    ]


def stored(folder: Path) -> list[Source]:
    """Every record of ``bench`` in ``folder``, by file name in order; JSON of other kinds is none of ours.

    Raises:
        UsageError: a file is no JSON, or a record that cannot be read.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            plain = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{file}: not valid JSON: {error}") from error
        if isinstance(plain, dict) and plain.get("kind") == KIND:
            found.append(file)
    return read(found)


def _tag(number: int) -> str:
    """A to Z, then AA, AB and so on."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
