"""Percentiles only where supported, intervals that cover, ratios that find what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from edge_reclass_bench import statistics as st


@pytest.mark.parametrize(("percent", "count"), [(50, 6), (90, 36), (95, 72), (99, 368), (10, 36)])
def test_a_percentile_needs_as_many_samples_as_bound_its_tails(percent: float, count: int) -> None:
    tail = max(percent, 100 - percent) / 100
    assert st.smallest_count(percent) == count
    assert tail**count <= 0.025 < tail ** (count - 1)


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_an_order_interval_exists_exactly_from_the_smallest_count(percent: float) -> None:
    count = st.smallest_count(percent)
    assert st.order_interval(np.arange(count - 1.0), percent) is None
    assert st.order_interval(np.arange(float(count)), percent) is not None


@pytest.mark.parametrize(("percent", "count"), [(50, 15), (90, 60), (95, 100)])
def test_an_order_interval_covers_the_true_percentile(percent: float, count: int) -> None:
    generator = np.random.default_rng(0)
    truth = percent / 100  # of the uniform distribution
    covered = 0
    for _ in range(2000):
        bounds = st.order_interval(np.sort(generator.random(count)), percent)
        assert bounds is not None
        covered += bounds[0] <= truth <= bounds[1]
    assert covered / 2000 >= 0.945  # 95 % or more, less the trial's own error


def test_the_known_interval_of_a_median() -> None:
    # Tables of the sign test: n = 15 gives the 4th and the 12th value at 96.5 %.
    assert st.order_interval(np.arange(1.0, 16.0), 50) == (4.0, 12.0)


def test_a_summary_leaves_out_what_its_samples_do_not_support() -> None:
    few = st.summarise([1.0, 2.0, 3.0], [], [0, 1, 2])
    assert few.percentiles == {}
    assert (few.n, few.min, few.max, few.mean.value, few.mean.low) == (3, 1.0, 3.0, 2.0, None)
    more = st.summarise([float(i) for i in range(80)], [], list(range(80)))
    assert list(more.percentiles) == ["p50", "p90", "p95"]
    assert more.percentiles["p50"].value == 39.5
    assert more.mean.low is not None


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        st.summarise([], [], [])


def test_the_mean_of_tracks_takes_each_tracks_median() -> None:
    tracks = [0, 1] * 3
    passes = [0, 0, 1, 1, 2, 2]
    samples = [10.0, 20.0, 11.0, 21.0, 500.0, 22.0]  # one disturbed sample
    assert st.summarise(samples, tracks, passes).mean.value == (11.0 + 21.0) / 2


def test_intervals_widen_with_what_happens_to_whole_passes() -> None:
    """A disturbed pass is one event: an interval that drew samples one by one would be far too narrow."""
    generator = np.random.default_rng(3)
    cells = np.full((40, 6), 100.0) * np.exp(generator.normal(0, 0.2, 6))[None, :]
    tracks, passes = np.divmod(np.arange(cells.size), 6)
    summary = st.summarise(cells.ravel().tolist(), tracks.tolist(), passes.tolist())
    estimate = summary.percentiles["p50"]
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low <= 100.0 <= estimate.high
    assert (estimate.high - estimate.low) / estimate.value > 0.1


def test_the_same_seed_gives_the_same_interval() -> None:
    generator = np.random.default_rng(1)
    samples = generator.random(60).tolist()
    tracks, passes = [i % 10 for i in range(60)], [i // 10 for i in range(60)]
    assert st.summarise(samples, tracks, passes, seed=5) == st.summarise(samples, tracks, passes, seed=5)
    assert st.summarise(samples, tracks, passes, seed=5) != st.summarise(samples, tracks, passes, seed=6)


def test_a_track_that_lacks_a_pass_is_left_out_of_the_table() -> None:
    cells, rows = st.table([1.0, 2.0, 3.0, 4.0, 5.0], [7, 8, 9, 7, 9], [0, 0, 0, 1, 1])
    assert rows == [7, 9]
    assert cells.tolist() == [[1.0, 4.0], [3.0, 5.0]]


def test_samples_come_in_any_order() -> None:
    cells, rows = st.table([4.0, 1.0, 2.0, 3.0], [1, 0, 1, 0], [1, 0, 0, 1])
    assert rows == [0, 1]
    assert cells.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def _cells(generator: np.random.Generator, factor: float, passes: int = 8, tracks: int = 15) -> np.ndarray:
    lengths = np.linspace(10, 100, tracks)[:, None]
    burst = np.exp(np.abs(generator.normal(0, 0.03, passes)))[None, :]  # what disturbs a pass only lengthens it
    return factor * lengths * burst * np.exp(generator.normal(0, 0.03, (tracks, passes)))


def test_a_ratio_covers_one_for_equals_and_not_for_a_fifth_more() -> None:
    generator = np.random.default_rng(11)
    wrong = missed = 0
    for trial in range(60):
        a, b = _cells(generator, 1.0), _cells(generator, 1.0)
        same = st.ratio(a, b, level=0.99, resamples=400, seed=trial)
        more = st.ratio(a, b * 1.2, level=0.99, resamples=400, seed=trial)
        assert same.low is not None and same.high is not None and more.low is not None
        wrong += not same.low <= 1 <= same.high
        missed += more.low <= 1
    assert wrong <= 3
    assert missed == 0


def test_a_ratio_needs_the_same_tracks() -> None:
    with pytest.raises(ValueError, match="same tracks"):
        st.ratio(np.ones((3, 2)), np.ones((4, 2)))


def test_a_ratio_of_almost_nothing_has_no_interval() -> None:
    assert st.ratio(np.array([[2.0]]), np.array([[3.0]])) == st.Estimate(value=1.5)


def test_a_paired_ratio_is_of_sums_and_sure_where_every_track_has_the_same() -> None:
    a = np.linspace(1, 50, 12)
    found = st.paired_ratio(a, a * 0.5)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one cost per track"):
        st.paired_ratio(a, a[:3])


def test_drift_scatter_and_outliers() -> None:
    steady = np.full((4, 10), 5.0)
    assert (st.drift(steady), st.scatter(steady), st.outliers(steady)) == (1.0, 0.0, 0.0)
    slower = steady.copy()
    slower[:, 5:] *= 1.1
    assert st.drift(slower) == pytest.approx(1.1)
    spiky = steady + np.linspace(0, 0.1, 10)[None, :]
    spiky[:, 3] = 50.0
    assert st.outliers(spiky) == pytest.approx(0.1)
    short = steady[:, :3]
    assert (st.drift(short), st.scatter(short), st.outliers(short)) == (None, None, None)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_wilson_gives_the_published_interval(count: int, total: int, low: float, high: float) -> None:
    found = st.wilson(count, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


def test_wilson_refuses_what_is_no_share() -> None:
    with pytest.raises(ValueError, match="count ≤ total"):
        st.wilson(3, 2)


def test_macro_f1_is_the_mean_over_the_labels_genres() -> None:
    said = ["a", "a", "b", "c", "b", "a"]
    labels = ["a", "b", "b", "a", "b", "a"]
    # a: TP 2, FP 1, FN 1 → 2/3; b: TP 2, FP 0, FN 1 → 4/5; c occurs in no label.
    found = st.macro_f1(said, labels)
    assert found.value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.low is not None and found.low <= found.value <= found.high
    assert st.accuracy(said, labels).share == pytest.approx(4 / 6)
