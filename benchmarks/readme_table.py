"""Writes the speed section of docs/notes/performance.md from the records in benchmarks/results/.

    python benchmarks/readme_table.py [--check] [--page docs/notes/performance.md] [--results benchmarks/results]

``--check`` writes nothing and exits with 1 where the section is not what the records say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.report.readme import performance_section, stored_records, with_section

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Parse the command line, then write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the section is up to date")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "notes" / "performance.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    try:
        old = options.page.read_text(encoding="utf-8")
        new = with_section(old, performance_section(stored_records(options.results)))
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
