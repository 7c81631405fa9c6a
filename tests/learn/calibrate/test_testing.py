"""The exact test, and testing in a fixed order."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="certificates need the extra [fit]")

from scipy.stats import beta

from edge_reclass_learn.calibrate.testing import certified, fewest, needed, p_value


def test_a_p_value_agrees_with_the_upper_limit_of_clopper_and_pearson() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        tracks = int(random.integers(1, 400))
        mistakes = int(random.integers(0, tracks // 3 + 1))
        epsilon, delta = random.uniform(0.01, 0.4, 2)
        upper = beta.ppf(1 - delta, mistakes + 1, tracks - mistakes)
        assert (p_value(mistakes, tracks, epsilon) <= delta) == (upper <= epsilon)
    assert p_value(0, 0, 0.05) == 1.0


@pytest.mark.parametrize(("epsilon", "delta"), [(0.05, 0.1), (0.5, 0.25), (0.01, 0.05), (0.9, 0.5), (0.1, 0.9)])
def test_the_fewest_tracks(epsilon: float, delta: float) -> None:
    least = fewest(epsilon, delta)
    assert (1 - epsilon) ** least <= delta + 1e-12
    assert least == 1 or (1 - epsilon) ** (least - 1) > delta


def test_how_many_tracks_a_share_of_mistakes_needs() -> None:
    assert needed(0.0, 0.05, 0.1) == fewest(0.05, 0.1) == 45
    assert needed(0.05, 0.05, 0.1) is None
    some, more = needed(0.02, 0.05, 0.1), needed(0.04, 0.05, 0.1)
    assert some is not None and more is not None and 45 < some < more
    assert p_value(int(np.ceil(0.04 * more)), more, 0.05) <= 0.1


def test_tests_end_at_the_first_that_fails() -> None:
    assert certified([0, 1, 30, 0], [100] * 4, 0.05, 0.1) == 2
    assert certified([30, 0, 0], [100] * 3, 0.05, 0.1) == 0
    assert certified([0, 0], [100, 100], 0.05, 0.1) == 2
    assert certified([0], [44], 0.05, 0.1) == 0, "one track too few"
