"""What a certificate of the manifest says, what it holds for, and whether it holds here.

A certificate belongs to one policy, its heads and its encoders, and to the devices and precisions that it was counted
on. Whatever of that is changed, it is void: nobody has counted anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_reclass.bundle.manifest import CertificateEntry, CountEntry, Manifest

_PROMISES: Final = {
    "disagreement": "of the verdicts differ from what all stages would have said",
    "error": "of the tracks get a wrong genre",
    "error_if_sure": "of the genres that it gives are wrong",
}


@dataclass(frozen=True)
class Digests:
    """sha256 of all that the verdicts of one policy depend on, apart from the encoders' graphs."""

    policy: str
    heads: str
    encoders: str


def digests(manifest: Manifest, policy: str, min_confidence: float | None = None) -> Digests:
    """What a certificate of ``policy`` would hold for; a KeyError where there is no such policy.

    Args:
        min_confidence: what the verdicts are made with, where it is not the manifest's.
    """
    entry = manifest.policies[policy]
    least = manifest.min_confidence if min_confidence is None else min_confidence
    steps = [msgspec.structs.replace(s, windows=None if s.windows == "all" else s.windows) for s in entry.steps]
    stages = [manifest.stage(name) for name in dict.fromkeys(step.after for step in steps)]
    heads, encoders = [], []
    for stage in stages:
        test = stage.head.range
        files = [manifest.files[file].sha256 for file in (stage.head.file, *(() if test is None else (test.file,)))]
        plain = {key: value for key, value in msgspec.to_builtins(stage.head).items() if key != "file"}
        if test is not None:
            plain["range"] = {"inputs": test.inputs, "limit": test.limit}
        heads.append([stage.name, plain, files])
        encoder = msgspec.to_builtins(stage.encoder)
        listens = {key: value for key, value in encoder.items() if key not in {"files", "reference"}}
        excerpt = msgspec.to_builtins(stage.excerpt or manifest.excerpt)
        encoders.append([stage.name, listens, excerpt, stage.loudness])
    return Digests(
        _sha256([entry.vote, msgspec.to_builtins(steps), least]),
        _sha256([manifest.genres, heads]),
        _sha256(encoders),
    )


def _sha256(plain: object) -> str:
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def graph_digests(manifest: Manifest, ran: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of the graph that each stage ran, where ``ran`` says on what, as ``cpu fp32``."""
    found = {}
    for stage, where in ran.items():
        files = manifest.stage(stage).encoder.graph_files
        if (precision := where.split()[-1]) in files:
            found[stage] = manifest.files[files[precision]].sha256
    return found


def void(manifest: Manifest, certificate: CertificateEntry, min_confidence: float | None = None) -> str | None:
    """Why a certificate does not hold any more; None where it does."""
    now = digests(manifest, certificate.policy, min_confidence)
    for what, then, here in (
        ("policy or min_confidence was", certificate.policy_sha256, now.policy),
        ("heads were", certificate.heads_sha256, now.heads),
        ("encoders were", certificate.encoders_sha256, now.encoders),
    ):
        if then != here:
            return f"the {what} changed"
    return None


def holding(manifest: Manifest, certificate: CertificateEntry) -> list[CountEntry]:
    """The counts whose graphs are still those of the bundle."""
    return [count for count in certificate.counts if graph_digests(manifest, count.ran) == count.graphs]


def promise(certificate: CertificateEntry, tracks: int) -> str:
    """What is certified, in words; ``tracks``: how many were counted."""
    return (
        f"on tracks like the {tracks} that it was counted on, at most {100 * certificate.epsilon:g} %"
        f" {_PROMISES[certificate.risk]} ({100 * (1 - certificate.delta):g} % sure)"
    )


def described(manifest: Manifest, certificate: CertificateEntry) -> Iterator[str]:
    """A certificate for people who look at a bundle: what it promises, where it was counted, or why it is void."""
    if why := void(manifest, certificate):
        yield f"void: {why}; counted before: {promise(certificate, certificate.counts[0].tracks)}"
        return
    for count in certificate.counts:
        if count not in holding(manifest, certificate):
            yield f"void on {where(count.ran)}: the encoders' graphs were changed"
            continue
        yield promise(certificate, count.tracks)
        known = f", {count.known} of them known to the heads" if count.known else ""
        unsure = f", {count.unsure} unsure" if count.unsure else ""
        yield (
            f"counted on {where(count.ran)}: {count.mistakes} of {count.tracks}{unsure}{known}; p = {count.p_value:.2g}"
        )
    yield f"assumes: {'; '.join(certificate.assumes)}"


def told(manifest: Manifest, policy: str, ran: Mapping[str, str], min_confidence: float | None = None) -> Iterator[str]:
    """What is certified of the verdicts of a policy that runs here, or why it is not; nothing without certificates.

    Args:
        ran: device and precision of each of the policy's stages with a graph, as ``cpu fp32``.
        min_confidence: what the verdicts are made with.
    """
    for certificate in manifest.certificates:
        if certificate.policy != policy:
            continue
        if why := void(manifest, certificate, min_confidence):
            yield f"no certificate: {why}"
            continue
        here = [count for count in holding(manifest, certificate) if count.ran == dict(ran)]
        if here:
            yield promise(certificate, here[0].tracks)
        else:
            known = " and ".join(where(count.ran) for count in certificate.counts)
            yield (
                f"no certificate for {where(ran)}: counted on {known} alone;"
                " edge-reclass calibrate --check BUNDLE --data DATA --device DEVICE  counts on this one"
            )


def where(ran: Mapping[str, str]) -> str:
    """``cpu fp32``, or stage by stage where they differ."""
    if len(set(ran.values())) <= 1:
        return next(iter(ran.values()), "any device")
    return ", ".join(f"{stage}: {one}" for stage, one in ran.items())
