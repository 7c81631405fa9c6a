"""Writes the speed section of docs/notes/performance.md from the records in benchmarks/results/.

    python benchmarks/readme_table.py [--check] [--page docs/notes/performance.md] [--results benchmarks/results]

``--check`` writes nothing and exits with 1 where the section is not what the records say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_bench.report import tables
from edge_reclass_bench.report.sources import Source, stored
from edge_reclass_learn.pages.table import escaped, markdown

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- performance: begin -->"
END = "<!-- performance: end -->"
FACTS = ("processor", "kernel", "clocks", "processes, passes", "tracks", "edge-reclass", "when", "command")


def section(sources: Sequence[Source]) -> str:
    """Markdown between the markers: for each record the answer, its numbers, and where they come from."""
    return "\n\n".join(block for source in sources for block in _of(source))


def _of(source: Source) -> Iterator[str]:
    record = source.books.record
    yield f"### {escaped(source.name)}"
    if record.subject.synthetic:
        yield "Untrained weights: times are true, answers mean nothing."
    elif not record.peers:
        yield markdown(tables.answer([source]))
    for table in tables.numbers([source]):
        if not table.title.startswith("Runs"):
            yield f"**{escaped(table.title)}**\n\n{markdown(table)}"
    facts = {row[0]: row[1] for row in tables.facts([source]).rows}
    yield "\n".join(f"- {name}: {escaped(facts[name])}" for name in FACTS if name in facts)


def with_section(page: str, text: str) -> str:
    """``page`` with ``text`` between its markers.

    Raises:
        UsageError: a marker is missing or a duplicate.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UsageError(f"the page needs the lines {BEGIN} and {END}, once each and in this order")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Parse the command line, then write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the section is up to date")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "notes" / "performance.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    try:
        old = options.page.read_text(encoding="utf-8")
        new = with_section(old, section(stored(options.results)))
    except EdgeReclassError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if old == new:
        return 0
    if options.check:
        print(f"{options.page}: not what the records say; run python benchmarks/readme_table.py", file=sys.stderr)
        return 1
    options.page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
