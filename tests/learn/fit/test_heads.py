"""Heads of every kind: what they learn, and that their graphs answer as the library that fitted them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="fitting needs the extra [fit]")
pytest.importorskip("onnx", reason="fitting needs the extra [fit]")
pytest.importorskip("onnxruntime", reason="graphs are run with the extra [cpu]")

from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.parity import run_graph
from edge_reclass_learn.fit import trees
from edge_reclass_learn.fit.heads import Head, balanced_weights, fit_head
from edge_reclass_learn.fit.held_back import AnyHead, hold_back
from edge_reclass_learn.fit.mlp import fit_mlp
from edge_reclass_learn.fit.trees import TreesHead, fit_trees

FITS = {"logistic": fit_head, "mlp": fit_mlp, "trees": fit_trees}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 12)


def rows(genres: int, seed: int = 0, each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Each genre lies on a ring of its own radius: a straight line does not part them."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(genres), each)
    angle = random.uniform(0, 2 * np.pi, len(labels))
    ring = (1.0 + 2.0 * labels)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.column_stack([ring, random.normal(0, 1, (len(labels), 3))]).astype(np.float32), labels


@pytest.mark.parametrize("genres", [2, 3])
@pytest.mark.parametrize("kind", list(FITS))
def test_the_graph_says_what_the_head_says(kind: str, genres: int) -> None:
    features, labels = rows(genres)
    # One genre more than there are rows of: it must never win.
    head: AnyHead = FITS[kind](features, labels, np.ones(len(labels)), genres + 1, strength=0.1)
    content = model_bytes(head.graph(), expect=head.interface)
    fresh = np.concatenate([rows(genres, 1)[0], 1e4 * rows(genres, 2)[0], np.zeros((3, 5), np.float32)])
    for batch in (fresh, fresh[:1]):
        got, want = run_graph(content, batch)[0], head.logits(batch)
        assert got.shape == want.shape == (len(batch), genres + 1)
        assert np.abs(got - want).max() < 1e-5 * max(1.0, float(np.abs(want).max()))
        assert not (want.argmax(axis=1) == genres).any()


@pytest.mark.parametrize("genres", [2, 3])
def test_trees_say_what_scikit_learn_says(genres: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.ensemble

    made = []
    library = sklearn.ensemble.GradientBoostingClassifier

    def watched(**options: object) -> object:
        made.append(library(**options))
        return made[-1]

    monkeypatch.setattr(sklearn.ensemble, "GradientBoostingClassifier", watched)
    features, labels = rows(genres)
    features = features.round(1)  # many rows lie on a threshold
    head = fit_trees(features, labels, np.ones(len(labels)), genres, strength=0.1)
    assert made[0].n_estimators == trees.ROUNDS
    assert (head.logits(features).argmax(axis=1) == labels).mean() > 0.9
    limits = np.unique(head.thresholds[head.thresholds < 1e30])
    at = np.concatenate([limits, np.nextafter(limits, np.float32(np.inf)), np.nextafter(limits, np.float32(-np.inf))])
    tried = np.concatenate([rows(genres, 3)[0], features, np.repeat(at[:, None], 5, axis=1)])
    want = made[0].decision_function(tried)
    got = run_graph(model_bytes(head.graph(), expect=head.interface), tried)[0]
    got = got[:, 1] - got[:, 0] if genres == 2 else got
    assert np.abs(got - want).max() < 1e-5


def test_the_mlp_says_what_scikit_learn_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.neural_network
    from scipy.special import softmax

    made = []
    library = sklearn.neural_network.MLPClassifier

    def watched(*given: object, **options: object) -> object:
        made.append(library(*given, **options))
        return made[-1]

    monkeypatch.setattr(sklearn.neural_network, "MLPClassifier", watched)
    features, labels = rows(3)
    head = fit_mlp(features, labels, np.ones(len(labels)), 3, strength=1.0)
    assert [layer.kernel.shape for layer in (*head.hidden, head.layer)] == [(5, 256), (256, 128), (128, 3)]
    standard = np.clip((features - head.scaler.mean) / head.scaler.scale, -head.scaler.clip, head.scaler.clip)
    got = run_graph(model_bytes(head.graph(), expect=head.interface), features)[0]
    assert np.abs(softmax(got, axis=1) - made[0].predict_proba(standard)).max() < 1e-5
    assert (head.logits(features).argmax(axis=1) == labels).mean() > 0.8


@pytest.mark.parametrize("kind", list(FITS))
def test_every_kind_takes_the_weights_of_rows(kind: str) -> None:
    # The same rows as two genres: the one that weighs more wins.
    features, _ = rows(1)
    both, labels = np.concatenate([features, features]), np.repeat([0, 1], len(features))
    for heavy in (0, 1):
        weights = np.where(labels == heavy, 1.8, 0.2)
        said = FITS[kind](both, labels, weights, 2, strength=0.1).logits(features).argmax(axis=1)
        assert (said == heavy).mean() > 0.9
    balanced = balanced_weights(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 2]), 2)
    assert balanced[0] == 2 * balanced[1] == 2 * balanced[2] and balanced[3] == 2 * balanced[0]


@pytest.mark.parametrize("kind", list(FITS))
def test_the_same_rows_give_the_same_head(kind: str) -> None:
    features, labels = rows(3, each=10)
    first, second = (FITS[kind](features, labels, np.ones(30), 3, strength=0.1) for _ in range(2))
    assert model_bytes(first.graph(), expect=first.interface) == model_bytes(second.graph(), expect=second.interface)


@pytest.mark.parametrize("kind", list(FITS))
def test_a_lone_genre_always_wins(kind: str) -> None:
    features, labels = rows(1)
    head = FITS[kind](features, labels + 1, np.ones(len(labels)), 3, strength=0.1)
    assert (run_graph(model_bytes(head.graph(), expect=head.interface), features)[0].argmax(axis=1) == 1).all()


def test_trees_use_no_operator_that_tensorrt_lacks() -> None:
    features, labels = rows(3, each=10)
    graph = fit_trees(features, labels, np.ones(30), 3, strength=0.1).graph()
    assert {entry.domain for entry in graph.opset_import} == {""}
    known = {"Gather", "LessOrEqual", "Cast", "Mul", "Sub", "Reshape", "MatMul", "Greater", "Gemm", "Identity"}
    assert {node.op_type for node in graph.graph.node} <= known


def test_only_logistic_heads_hold_genres_back() -> None:
    features, labels = rows(3, each=10)
    new = np.array([False, False, True])
    head = fit_head(features, labels, np.ones(30), 3, strength=0.1)
    assert isinstance(head, Head)
    assert np.allclose(head.logits(features) - hold_back(head, 2.0, new).logits(features), [0.0, 0.0, 2.0])
    other = fit_trees(features, labels, np.ones(30), 3, strength=0.1)
    assert isinstance(other, TreesHead)
    with pytest.raises(TypeError, match="logistic"):
        hold_back(other, 2.0, new)
