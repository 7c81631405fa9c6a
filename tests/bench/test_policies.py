"""Baselines are policies that the runtime accepts, and do what they are named after."""

from __future__ import annotations

from pathlib import Path

from bundles import fma_stage, make_bundle, waveform_stage
from edge_reclass.bundle.loading import load
from edge_reclass.cascade.policy import Answer, Policy, Step, check, decide
from edge_reclass_bench.policies import ensemble, needs, single

POLICY = Policy(
    "ladder",
    "soft",
    (
        Step("a", {"a": 1.0}, 0.8),
        Step("b", {"a": 0.5, "b": 0.5}, 0.7),
        Step("c", {"a": 0.2, "b": 0.0, "c": 0.8}),
    ),
)
SURE = (1.0, 0.0)


def test_the_ensemble_asks_everyone_whatever_they_say() -> None:
    policy = ensemble(POLICY)
    assert check(policy, ["a", "b", "c"]) == []
    answers = [Answer(name, SURE) for name in "abc"]
    assert [decide(policy, answers[: i + 1]).stop for i in range(3)] == [False, False, True]
    assert policy.steps[-1].weights == POLICY.steps[-1].weights


def test_a_single_stage_says_its_own_probabilities_bit_for_bit() -> None:
    policy = single("c", ["a"])
    assert check(policy, ["a", "b", "c"]) == []
    own = (0.1 + 0.2, 0.7 - 1e-17)
    assert not decide(policy, [Answer("a", SURE)]).stop
    decision = decide(policy, [Answer("a", SURE), Answer("c", own)])
    assert decision.stop
    assert decision.scores == own


def test_what_heads_need_is_read_from_the_manifest(tmp_path: Path) -> None:
    stages = [fma_stage(), waveform_stage("net", head={"inputs": ["fma", "net"]})]
    assert needs(load(make_bundle(tmp_path, stages)).manifest) == {"fma": (), "net": ("fma",)}
