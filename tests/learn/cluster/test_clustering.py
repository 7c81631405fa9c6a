"""Points to clusters, and how many: made points whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="clustering needs the extra [fit]")
pytest.importorskip("onnx", reason="clustering needs the extra [fit]")

from sklearn.metrics import adjusted_rand_score

from edge_reclass_learn.cluster import clustering, stability
from edge_reclass_learn.cluster.clustering import arranged, hdbscan, k_means, reproducible
from edge_reclass_learn.cluster.space import make_space
from edge_reclass_learn.cluster.stability import choose, stability_curve, tried
from traced import traced

Blobs = tuple[NDArray[np.float32], NDArray[np.intp]]


def blobs(groups: int = 5, each: int = 40, spread: float = 0.5, dims: int = 6, seed: int = 0) -> Blobs:
    random = np.random.default_rng(seed)
    centres = 8.0 * np.eye(groups, dims)
    of = np.repeat(np.arange(groups), each)
    return (centres[of] + random.normal(0, spread, (len(of), dims))).astype(np.float32), of


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "PAIRS", 5)


def names(total: int) -> list[str]:
    return [f"g{i}" for i in range(total)]


def test_k_means_finds_groups_and_the_seed_decides() -> None:
    points, of = blobs()
    with reproducible():
        labels = k_means(points, 5, 3)
        assert adjusted_rand_score(of, labels) == 1.0
        assert (k_means(points, 5, 3) == labels).all()


def test_a_large_library_is_clustered_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    points, of = blobs()
    monkeypatch.setattr(clustering, "SAMPLE", 80)
    with reproducible():
        assert adjusted_rand_score(of, k_means(points, 5, 0)) == 1.0
        assert adjusted_rand_score(of, hdbscan(points, 10, 0)) > 0.9


def test_hdbscan_leaves_what_is_alone() -> None:
    points, of = blobs(each=30)
    alone = np.random.default_rng(1).uniform(-60, 60, (20, 6)).astype(np.float32)
    with reproducible():
        labels = hdbscan(np.concatenate([points, alone]), 10, 0)
    own = labels[: len(of)]
    assert adjusted_rand_score(of[own >= 0], own[own >= 0]) == 1.0
    assert (own >= 0).mean() > 0.9 and (labels[len(of) :] < 0).mean() > 0.9


def test_clusters_are_numbered_by_size_with_distances_to_their_centres() -> None:
    points = np.array([[0, 0], [0, 2], [9, 0], [9, 1], [9, 2], [4, 1]], np.float32)
    found = arranged(points, np.array([7, 7, 2, 2, 2, -1]))
    assert found.labels.tolist() == [1, 1, 0, 0, 0, -1]
    assert found.centres.tolist() == [[9, 1], [0, 1]]
    assert found.distances.tolist() == pytest.approx([1, 1, 1, 0, 1, 4])
    assert found.following.tolist() == [0, 0, 1, 1, 1, 0]
    assert found.ratios[5] == pytest.approx(4 / 5)
    assert found.far[5] and not found.between[5]  # in no cluster
    one = arranged(points, np.zeros(6, np.intp))  # there is no other centre to be between
    assert len(one) == 1 and not one.between.any()


def test_as_many_clusters_as_there_are_groups() -> None:
    points, of = blobs()
    with reproducible():
        curve = stability_curve(points, names(len(of)), [2, 3, 4, 5, 6, 8], 0, lambda _: None)
    assert choose(curve) == 5
    best = {one.clusters: one for one in curve}
    assert best[5].agreement == 1.0 and best[5].silhouette > 0.7 and best[8].agreement < 0.9


def test_music_without_groups_is_no_more_stable_than_shuffled() -> None:
    points = np.random.default_rng(0).uniform(size=(200, 6)).astype(np.float32)
    with reproducible():
        curve = stability_curve(points, names(200), [2, 4, 6], 0, lambda _: None)
    assert all(abs(one.lead) < 0.3 for one in curve)


def test_an_artist_is_not_stable_without_the_artist() -> None:
    """Blobs that are an artist each: parts of the artists give other clusters, parts of the tracks the same."""
    points, of = blobs(each=20, spread=1.0)
    with reproducible():
        loose = stability_curve(points, names(len(of)), [5], 0, lambda _: None)[0]
        grouped = stability_curve(points, [f"artist {i}" for i in of], [5], 0, lambda _: None)[0]
    assert loose.agreement > 0.95 and grouped.agreement < loose.agreement - 0.1


def test_few_tracks_are_not_cut_into_many_clusters() -> None:
    assert tried(20) == [2, 3, 4] and tried(5) == [2] and max(tried(10_000)) == max(stability.TRIED)


def test_stages_count_alike_however_wide_they_are() -> None:
    random = np.random.default_rng(0)
    vectors = {"narrow": random.normal(5, 3, (60, 4)), "wide": random.normal(0, 1e3, (60, 64))}
    plain = {name: one.astype(np.float32) for name, one in vectors.items()}
    space = make_space(plain, ["narrow", "wide"], np.arange(60))
    assert space.weights == pytest.approx({"narrow": 1.0, "wide": 0.25})
    points = space.place(plain)
    assert points.shape == (60, 20) and points.dtype == np.float32
    alone = make_space(plain, ["narrow"], np.arange(60))
    assert alone.place(plain).shape == (60, 4) and alone.explained == pytest.approx(1.0)


def test_distances_of_many_clusters_take_little_memory() -> None:
    random = np.random.default_rng(0)
    points, labels = random.normal(size=(4000, 50)).astype(np.float32), np.arange(4000) % 200
    found = traced(lambda: arranged(points, labels), runs=1)
    assert max(found.peaks) < 30e6, "not tracks x clusters x dimensions: 320 MB"
    clusters = arranged(points, labels)
    some = points[:100].astype(np.float64)[:, None] - clusters.centres
    distances = np.linalg.norm(some, axis=2)
    assert np.allclose(clusters.distances[:100], distances[np.arange(100), clusters.labels[:100]])
