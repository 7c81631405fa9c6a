"""The tables of docs/notes/performance.md, from stored records alone: what was measured, where, by which command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_reclass.errors import UsageError
from edge_reclass_bench.record import KIND, Measure, Record, load
from edge_reclass_bench.report.markdown import escaped, markdown_table
from edge_reclass_bench.report.source import decode_measure, stage_names, stage_parts
from edge_reclass_bench.report.tables import NOTHING, Column, Table
from edge_reclass_bench.report.text import duration, interval, number

__all__ = ["BEGIN", "END", "performance_section", "stored_records", "with_section"]

BEGIN = "<!-- performance: begin -->"
END = "<!-- performance: end -->"

Named = tuple[str, Record]


def stored_records(folder: Path) -> list[Named]:
    """Every record of ``bench`` in ``folder``, by file name in order; JSON of other kinds is none of ours.

    Raises ``UsageError`` where a file is no JSON, or a record that cannot be read.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            plain = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{file}: not valid JSON: {error}") from error
        if isinstance(plain, dict) and plain.get("kind") == KIND:
            found.append((file.name, load(file)))
    return found


def performance_section(records: Sequence[Named]) -> str:
    """Markdown between the markers: per machine what the cascades cost, then peers. Empty without records."""
    machines = dict.fromkeys(record.subject.machine for _, record in records)
    blocks = [
        _of_machine(machine, [named for named in records if named[1].subject.machine == machine])
        for machine in machines
    ]
    return "\n\n".join(blocks)


def with_section(page: str, section: str) -> str:
    """``page`` with ``section`` between its markers. Raises ``UsageError`` unless each marker stands there once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UsageError(f"the page needs the lines {BEGIN} and {END}, once each and in this order")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def _of_machine(machine: str, records: Sequence[Named]) -> str:
    blocks = [f"On {escaped(machine)}:"]
    cascades = [named for named in records if named[1].accounting is not None]
    if cascades:
        blocks.append(markdown_table(_cascades(record for _, record in cascades)))
    compared = [(record, peer) for _, record in records for peer in record.peers if peer.ratio is not None]
    if compared:
        rows = []
        for record, peer in compared:
            measures = {measure.key: measure for measure in record.measures}
            theirs = next(record.find(scenario="peers", subject=peer.name), None)
            ratio = interval(peer.ratio) if peer.ratio is not None else NOTHING
            rows.append((peer.task, peer.title, _median(theirs), _median(measures.get(peer.ours or "")), ratio))
        columns = ("same work, in turn", "by", "median", "edge-reclass", "ratio [95 %]")
        blocks.append(
            markdown_table(Table("", tuple(Column(name, i > 1) for i, name in enumerate(columns)), tuple(rows)))
        )
    sources = [_source(name, record) for name, record in records]
    blocks.append("Measured by\n\n" + "\n".join(sources))
    return "\n\n".join(blocks)


def _cascades(records: Iterable[Record]) -> Table:
    """A column per record; a row per thing that was measured in any of them."""
    columns = [_cascade(record) for record in records]
    heads = [column.pop(_HEAD) for column in columns]
    keys = sorted(dict.fromkeys(key for column in columns for key in column), key=_place)
    rows = tuple((key, *(column.get(key, NOTHING) for column in columns)) for key in keys)
    note = (
        "Means per track with 95 % intervals, warm, one track at a time, unless said. Expected: decode + Σ reach × cost"
        " of each stage alone. Throughput: all tracks at hand. Cold start: new process to first verdict."
    )
    return Table("", (Column(""), *(Column(head, True) for head in heads)), rows, note)


_HEAD = "head"
_ROWS = (
    "decode",
    "stage",
    "cascade, expected",
    "cascade, measured",
    "its p50, p90, p99",
    "full ensemble",
    "throughput",
)


def _place(key: str) -> tuple[int, str]:
    """Rows in the order of ``_ROWS``, stages by their number, cold start last."""
    return next((i for i, row in enumerate(_ROWS) if key.startswith(row)), len(_ROWS)), key


def _cascade(record: Record) -> dict[str, str]:
    subject, books = record.subject, record.accounting
    weights = ", untrained weights" if subject.synthetic else ""
    cells = {_HEAD: f"{subject.bundle}{weights}, policy {subject.policy.name}, {subject.device}"}
    decode = decode_measure(record)
    if decode is not None:
        cells["decode"] = duration(decode.summary.mean)
    for number_of, stage in enumerate(stage_names(record), 1):
        total = stage_parts(record, stage).get(("total", "host"))
        if total is not None:
            cells[f"stage {number_of} alone"] = f"{stage}: {duration(total.summary.mean)}"
    if books is not None and books.expected is not None:
        cells["cascade, expected"] = duration(books.expected.expected)
        cells["cascade, measured"] = duration(books.expected.measured)
    for line in books.baselines if books else []:
        if line.name == "ensemble":
            cells["full ensemble"] = duration(line.milliseconds)
    for track in record.find(scenario="single-stream", subject="cascade", part="track"):
        known = track.summary.percentiles
        marks = [number(known[key].value) if key in known else NOTHING for key in ("p50", "p90", "p99")]
        cells["its p50, p90, p99"] = ", ".join(marks) + f"\u00a0{track.unit}"
    for measure in record.measures:
        if measure.unit == "tracks/min":
            jobs = record.settings.jobs
            lanes = "1 lane" if jobs == 1 else f"{jobs} lanes"
            cells[f"throughput, {lanes}"] = interval(measure.summary.mean, "tracks/min")
    for total in record.find(scenario="cold-start", part="total", phase=None):
        cells["cold start"] = interval(total.summary.mean, total.unit)
    return cells


def _median(measure: Measure | None) -> str:
    if measure is None:
        return NOTHING
    median = measure.summary.percentiles.get("p50")
    return f"{number((median or measure.summary.mean).value)}\u00a0{measure.unit}"


def _source(name: str, record: Record) -> str:
    """One line: the command, the file that keeps every sample, when, on what data, and whether to trust it."""
    environment, warnings = record.environment, len(record.warnings)
    words = list(environment.command)
    for place, word in enumerate(words[:-1]):
        if word in {"-o", "--output"}:  # where the record lay at first is of no use to anybody else
            words[place + 1] = f"benchmarks/results/{name}"
    command = " ".join([Path(words[0]).name, *words[1:]]) if words else NOTHING
    doubts = f"; {warnings} warning{'s' if warnings != 1 else ''} in the record" if warnings else ""
    tracks = len(record.tracks)
    return (
        f"- `{command.replace('`', ' ')}` → `benchmarks/results/{name}`: {environment.created[:10]},"
        f" {tracks} track{'s' if tracks != 1 else ''}, commit {(environment.commit or 'unknown')[:7]}{doubts}"
    )
