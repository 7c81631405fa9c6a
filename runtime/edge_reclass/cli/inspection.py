"""What ``edge-reclass inspect`` prints: a bundle's stages, policies, files and provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import msgspec

from edge_reclass.bundle.certificate import described
from edge_reclass.bundle.loading import Bundle
from edge_reclass.bundle.manifest import ExcerptEntry, StageEntry
from edge_reclass.run.text import printable


def describe_json(bundle: Bundle) -> str:
    """The manifest and the bundle's digest as one JSON object."""
    # JSON has no NaN: msgspec writes null for it, as provenance may hold what somebody measured. It refuses stray bytes
    # in the path, which json keeps.
    manifest = json.loads(msgspec.json.encode(bundle.manifest))
    return json.dumps({"path": str(bundle.root), "digest": bundle.digest, **manifest}, indent=2, ensure_ascii=False)


def describe(bundle: Bundle) -> str:
    """A bundle whose files were verified, as text for people."""
    return "\n".join(map(printable, _lines(bundle)))


def _lines(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    yield f"bundle   {manifest.name}"
    yield f"path     {bundle.root}"
    yield f"digest   {bundle.digest}"
    yield f"files    {len(manifest.files)}, {size / 1e6:.1f} MB, all hashes match"
    yield f"genres   {len(manifest.genres)}: {', '.join(manifest.genres)}"
    yield f"excerpt  {_excerpt(manifest.excerpt)}"
    yield ""
    for stage in manifest.stages:
        yield from _stage(stage)
    yield ""
    for name, policy in manifest.policies.items():
        default = "  (default)" if name == manifest.default_policy else ""
        yield f"policy   {name}: {policy.vote} vote{default}"
        for step in policy.steps:
            weights = ", ".join(f"{stage} {weight:g}" for stage, weight in step.weights.items())
            accept = "decides" if step.accept is None else f"accepts above {step.accept:g}"
            asked = step.after if step.windows in {None, "all"} else f"{step.windows} of {step.after}'s windows"
            yield f"         after {asked}: {accept}; weights {weights}"
        for certificate in (one for one in manifest.certificates if one.policy == name):
            first, *more = described(manifest, certificate)
            yield f"         certificate ({certificate.risk}): {first}"
            yield from (f"           {line}" for line in more)
    if manifest.provenance:
        yield ""
        yield from _tree("provenance", manifest.provenance, "")


def _stage(stage: StageEntry) -> Iterator[str]:
    encoder = stage.encoder
    what = encoder.describe()
    if encoder.window_samples is not None and encoder.hop_samples is not None and encoder.rate != "native":
        window, hop = encoder.window_samples / encoder.rate, encoder.hop_samples / encoder.rate
        what += f", windows of {window:.2f} s every {hop:.2f} s"
    if stage.excerpt is not None:
        what += f", excerpt {_excerpt(stage.excerpt)}"
    yield f"stage    {stage.name}: {what}"
    inputs = ", ".join(stage.head.inputs)
    yield f"         head {stage.head.file} on {inputs}, temperature {stage.head.temperature:g}"
    if stage.head.genres is not None:
        own = ", ".join(_mapped(genre, stage.head.shares(genre)) for genre in stage.head.genres)
        yield f"         its own {len(stage.head.genres)} genres: {own}"


def _mapped(genre: str, shares: Mapping[str, float]) -> str:
    """A genre of a head's own, and what it counts for where that is not the genre of the same name alone."""
    if list(shares) == [genre]:
        return genre
    parts = (name if share == 1.0 else f"{share:.3g} {name}" for name, share in shares.items())
    return f"{genre} → {' + '.join(parts) or 'none'}"


def _excerpt(excerpt: ExcerptEntry) -> str:
    if excerpt.full:
        return "the full track"
    start = "the centre" if excerpt.start in {None, "center"} else f"{excerpt.start:g} s on"
    return f"{excerpt.seconds:g} s from {start}"


def _tree(key: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{indent}{key}"
        for inner, part in value.items():
            yield from _tree(str(inner), part, indent + "  ")
    else:
        yield f"{indent}{key}: {value}"
