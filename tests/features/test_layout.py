"""Names and order of the 518 columns."""

from __future__ import annotations

from edge_reclass.features import FEATURE_COUNT, FEATURE_NAMES
from edge_reclass.features.layout import EARLY_ROWS, LATE_ROWS, ROWS, column_order


def test_there_are_518_distinct_names_in_sorted_order() -> None:
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == FEATURE_COUNT == 518
    assert list(FEATURE_NAMES) == sorted(FEATURE_NAMES)


def test_known_columns() -> None:
    # Named in the definition: facts of FMA's published table.
    assert FEATURE_NAMES[0] == "chroma_cens/kurtosis/01"
    assert FEATURE_NAMES[84] == "chroma_cqt/kurtosis/01"
    assert FEATURE_NAMES[252] == "mfcc/kurtosis/01"
    assert FEATURE_NAMES[392:399] == tuple(
        f"rmse/{s}/01" for s in ("kurtosis", "max", "mean", "median", "min", "skew", "std")
    )
    assert FEATURE_NAMES[517] == "zcr/std/01"


def test_the_workspace_orders_cover_every_column_once() -> None:
    assert set(EARLY_ROWS) | set(LATE_ROWS) == set(ROWS)
    assert sorted(column_order(EARLY_ROWS) + column_order(LATE_ROWS)) == list(range(518))
