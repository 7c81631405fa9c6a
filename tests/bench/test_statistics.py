"""Percentiles only where supported, intervals that cover, ratios that find what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from edge_reclass_bench import statistics as st


@pytest.mark.parametrize(("percent", "count"), [(50, 6), (90, 36), (95, 72), (99, 368), (10, 36)])
def test_a_percentile_needs_as_many_draws_as_bound_its_tails(percent: float, count: int) -> None:
    tail = max(percent, 100 - percent) / 100
    assert st.smallest_count(percent) == count
    assert tail**count <= 0.025 < tail ** (count - 1)
    assert st.order_interval(np.arange(count - 1.0), percent) is None
    assert st.order_interval(np.arange(float(count)), percent) is not None


@pytest.mark.parametrize(("percent", "count"), [(50, 15), (90, 60), (95, 100)])
def test_an_order_interval_covers_the_true_percentile(percent: float, count: int) -> None:
    generator = np.random.default_rng(0)
    truth, covered = percent / 100, 0  # of the uniform distribution
    for _ in range(2000):
        bounds = st.order_interval(np.sort(generator.random(count)), percent)
        assert bounds is not None
        covered += bounds[0] <= truth <= bounds[1]
    assert covered / 2000 >= 0.945  # 95 % or more, less the trial's own error


def test_the_known_interval_of_a_median() -> None:
    # Tables of the sign test: n = 15 gives the 4th and the 12th value at 96.5 %.
    assert st.order_interval(np.arange(1.0, 16.0), 50) == (4.0, 12.0)


def summary_of(cells: np.ndarray) -> st.Summary:
    """Of float[processes, tracks, passes]."""
    index = np.indices(cells.shape).reshape(3, -1).tolist()
    return st.summarise(cells.ravel().tolist(), tracks=index[1], passes=index[2], processes=index[0])


def test_percentiles_count_tracks_and_not_repetitions() -> None:
    """19 tracks support a median and no p95, however often each is measured."""
    cells = np.random.default_rng(0).uniform(1, 2, (5, 19, 40))
    assert list(summary_of(cells).percentiles) == ["p50"]
    assert list(summary_of(np.random.default_rng(0).uniform(1, 2, (5, 80, 2))).percentiles) == ["p50", "p90", "p95"]


def test_measurement_error_is_told_apart_from_the_spread_over_tracks() -> None:
    tracks = np.linspace(10, 1000, 20)
    cells = np.broadcast_to(tracks[None, :, None], (5, 20, 6)) * np.linspace(0.99, 1.01, 5)[:, None, None]
    found = summary_of(cells)
    assert found.mean.value == pytest.approx(tracks.mean())
    assert found.error is not None and 0.01 < found.error < 0.02
    assert found.mean.low is not None and found.mean.low < 0.85 * tracks.mean()


def test_one_process_has_no_measurement_error() -> None:
    assert summary_of(np.ones((4, 8, 50))).error is None


def test_the_error_covers_the_truth() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        values = 100 * np.exp(generator.normal(0, 0.02, 5))
        error = st.error_of(values)
        assert error is not None
        covered += abs(values.mean() - 100) <= error * values.mean()
    assert covered / 2000 >= 0.98


def test_the_tail_is_of_a_tracks_own_median() -> None:
    cells = np.full((5, 10, 20), 7.0)
    cells[:, :, 3] = 14.0  # every twentieth pass is slow: just beyond the 95th percentile
    cells[:, ::2, 4] = 14.0
    found = summary_of(cells)
    assert found.tail == {"p95": 2.0, "p99": 2.0}
    assert found.mean.value == 7.0


def test_the_mean_of_tracks_takes_each_tracks_median() -> None:
    samples = [10.0, 20.0, 11.0, 21.0, 500.0, 22.0]  # one disturbed sample
    found = st.summarise(samples, [0, 1] * 3, [0, 0, 1, 1, 2, 2], [0] * 6)
    assert found.mean.value == (11.0 + 21.0) / 2


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        st.summarise([], [], [], [])


def test_a_track_that_lacks_a_pass_of_any_process_is_left_out() -> None:
    cells, rows = st.tables([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7, 8, 9, 9, 7, 7], [0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1])
    assert rows == [7]
    assert [table.tolist() for table in cells] == [[[1.0]], [[5.0, 6.0]]]


def test_where_no_track_is_in_every_pass_there_is_a_mean_and_no_error() -> None:
    columns = [1.0, 2.0, 3.0], [0, 1, 1], [0, 1, 2], [0, 0, 0]
    assert [table.shape for table in st.tables(*columns)[0]] == [(0, 3)]
    summary = st.summarise(*columns)
    assert (summary.mean.value, summary.error, summary.tail) == (2.0, None, {})


def test_a_bootstrap_of_many_rows_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).normal(5, 1, (40, 1))
    whole = st.bootstrap_rows(rows, lambda drawn: drawn.mean(axis=(-2, -1)))
    monkeypatch.setattr(st, "_AT_ONCE", 1000)
    assert st.bootstrap_rows(rows, lambda drawn: drawn.mean(axis=(-2, -1))) == whole


def made(generator: np.random.Generator, between: float, factor: float = 1.0, processes: int = 5) -> st.Tables:
    """19 tracks × 3 passes in each process; tracks, passes, cells and processes vary."""
    tracks = np.exp(np.random.default_rng(0).normal(5, 0.5, 19))[:, None] * factor
    return [
        tracks
        * np.exp(generator.normal(0, between))
        * np.exp(generator.normal(0, 0.01, (1, 3)))
        * np.exp(generator.normal(0, 0.02, (19, 3)))
        for _ in range(processes)
    ]


@pytest.mark.parametrize("between", [0.0, 0.01, 0.02, 0.05])
def test_equals_are_called_different_as_seldom_as_is_promised(between: float) -> None:
    generator = np.random.default_rng(11)
    wrong = 0
    for _ in range(500):
        found = st.ratio(made(generator, between), made(generator, between))
        assert found.low is not None and found.high is not None
        wrong += not found.low <= 1 <= found.high
    assert wrong / 500 <= 0.025  # 1 %, and the trial's own error


@pytest.mark.parametrize(("between", "factor"), [(0.005, 1.05), (0.01, 1.1), (0.02, 1.2)])
def test_what_is_slower_is_found(between: float, factor: float) -> None:
    generator = np.random.default_rng(12)
    found = [st.ratio(made(generator, between), made(generator, between, factor)) for _ in range(200)]
    assert np.mean([one.low is not None and one.low > 1 for one in found]) >= 0.95
    assert np.median([one.value for one in found]) == pytest.approx(factor, rel=0.01)


def test_a_ratio_of_few_processes_has_no_interval() -> None:
    generator = np.random.default_rng(1)
    found = st.ratio(made(generator, 0.01, processes=4), made(generator, 0.01, 1.5))
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(1.5, rel=0.05)


def test_one_odd_track_and_one_disturbed_pass_change_little() -> None:
    generator = np.random.default_rng(2)
    a, b = made(generator, 0.005), made(generator, 0.005)
    for table in b:
        table[3] *= 10
        table[:, 1] *= 2
    assert st.ratio(a, b).value == pytest.approx(1.0, abs=0.03)


def test_a_ratio_needs_the_same_tracks() -> None:
    with pytest.raises(ValueError, match="same tracks"):
        st.ratio([np.ones((3, 2))], [np.ones((4, 2))])


def test_a_paired_ratio_is_of_sums_and_sure_where_every_track_has_the_same() -> None:
    a = np.linspace(1, 50, 12)
    found = st.paired_ratio(a, a * 0.5)
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    with pytest.raises(ValueError, match="one cost per track"):
        st.paired_ratio(a, a[:3])


def test_drift_and_scatter() -> None:
    steady = np.full((4, 10), 5.0)
    assert (st.drift(steady), st.scatter(steady)) == (1.0, 0.0)
    slower = steady.copy()
    slower[:, 5:] *= 1.1
    assert st.drift(slower) == pytest.approx(1.1)
    assert (st.drift(steady[:, :3]), st.scatter(steady[:, :3])) == (None, None)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_wilson_gives_the_published_interval(count: int, total: int, low: float, high: float) -> None:
    found = st.wilson(count, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


def test_macro_f1_is_the_mean_over_the_labels_genres() -> None:
    said = ["a", "a", "b", "c", "b", "a"]
    labels = ["a", "b", "b", "a", "b", "a"]
    # a: TP 2, FP 1, FN 1 → 2/3; b: TP 2, FP 0, FN 1 → 4/5; c occurs in no label.
    found = st.macro_f1(said, labels)
    assert found.value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    assert st.accuracy(said, labels).share == pytest.approx(4 / 6)
