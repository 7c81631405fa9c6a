"""The page of a journal: what was asked for, in tables. Only what was measured stands in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_reclass_learn.pages.table import Table, markdown, terminal
from gpu_check.journal import Item, Line, Settings, latest

PAGE = "gpu_check.md"
_WIDTH = 140


def bad(lines: Sequence[Line]) -> bool:
    """Whether anything failed, crashed or is wrong."""
    return any(item.status in {"wrong", "failed", "crashed"} for item in latest(lines))


def write(lines: Sequence[Line], out: Path) -> str:
    """Write the page into ``out``; gives the same tables for a terminal."""
    labels = dict.fromkeys(line.label for line in lines if isinstance(line, Settings))
    found = [table for table in tables(latest(lines)) if table.rows]
    page = ["# GPU check", *(f"**{label}**" for label in labels)]
    for table in found:
        page += [f"## {table.title}", markdown(table)]
    (out / PAGE).write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return "\n".join([*labels, terminal(found, _WIDTH)])


def tables(items: Sequence[Item]) -> Iterator[Table]:
    """All tables, empty ones too."""
    yield _stages(items)
    yield Table(
        "What is wrong, failed, not here or left",
        ("stage", "item", "status", "why"),
        tuple((i.stage, i.name, i.status, i.reason) for i in items if i.status != "ok"),
    )
    yield _parity(items)
    yield _times(items)
    rest = [item for item in items if not item.shares and not item.checks]
    values = tuple((name, f"{value:.4g}") for item in rest for name, value in item.values.items())
    yield Table("Ceilings, throughput, builds", ("what", ">value"), values)
    yield Table(
        "What else was found",
        ("stage", "item", "what", "found"),
        tuple((item.stage, item.name, name, text) for item in items for name, text in item.facts.items()),
    )


def _stages(items: Sequence[Item]) -> Table:
    rows = []
    for stage in dict.fromkeys(item.stage for item in items):
        mine = [item for item in items if item.stage == stage]
        counts = Counter(item.status for item in mine)
        rows.append(
            (stage, f"{sum(item.seconds for item in mine):.1f}", ", ".join(f"{n} {name}" for name, n in counts.items()))
        )
    note = "Without TensorRT there is no engine: the path with engines is ONNX Runtime with CUDA graphs then."
    return Table("Stages", ("stage", ">seconds", "items"), tuple(rows), note)


def _parity(items: Sequence[Item]) -> Table:
    rows = [
        (
            item.name,
            str(c.batch),
            c.against,
            str(c.rows),
            f"{c.cosine:.7f}",
            f"{c.relative:.1e}",
            c.worst_row,
            c.wrong or "yes",
        )
        for item in items
        for c in item.checks
    ]
    head = (
        "encoder",
        ">batch",
        "against",
        ">rows",
        ">least cosine",
        ">relative error",
        "worst row",
        "within the limits",
    )
    return Table("Parity", head, tuple(rows))


def _times(items: Sequence[Item]) -> Table:
    rows = []
    for item in items:
        torch = [share.milliseconds for share in item.shares if share.contender == "torch sdpa"]
        for share in item.shares:
            rows.append(
                (
                    item.name,
                    share.contender,
                    f"{share.milliseconds:.4g}",
                    share.clock,
                    f"{share.host_milliseconds:.4g}",
                    f"{torch[0] / share.milliseconds:.2f}" if torch else "–",
                    f"{share.tflops:.3g}",
                    ", ".join(f"{100 * part:.0f} % of {name}" for name, part in share.ceilings.items()),
                )
            )
    head = ("encoder", "program", ">ms", "clock", ">host ms", ">× torch sdpa", ">TFLOP/s", "of the ceilings")
    note = (
        "FP16, median. The device's clock is CUDA events around the computation, its batch on the device; the host's "
        "is from host memory to host memory. A share above 100 % is wrong."
    )
    return Table("Times", head, tuple(rows), note)
