"""Stage ``cascade``: tracks per minute of features → MERT-95M → OpenJMLA over made files, by ``bench run``'s offline.

The heads are untrained: ``thorough`` sends every track through all stages; ``early-exit`` has thresholds at which about
half of the tracks leave after each stage. Who really decided stands beside the figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import soundfile

from edge_reclass.cascade import Options
from edge_reclass_bench.harness import Request
from edge_reclass_bench.harness import run as bench
from edge_reclass_bench.record import save
from edge_reclass_bench.synthetic.tracks import RATE, synthesised
from edge_reclass_bench.tracks import find
from gpu_check.encoders import filled
from gpu_check.journal import Begun, Item, NotHere, Settings, Work

_FORMATS = {".wav": "PCM_16", ".flac": "PCM_16", ".mp3": "MPEG_LAYER_III"}


def run(work: Work) -> Iterator[Begun | Item]:
    """See the module."""
    yield from filled(work, "cascade")
    if (Path(work.settings.state) / "cascade").is_dir():
        yield from measured(work, work.settings.device)


def measured(work: Work, device: str) -> Iterator[Begun | Item]:
    """Both policies on ``device``."""
    seconds = 1.0 if work.settings.tiny else 30.0
    for policy in ("thorough", "early-exit"):
        measure = partial(_throughput, work.settings, device, policy, seconds)
        yield from work.do(f"{device} {policy}", measure, seconds + (5.0 if work.settings.tiny else 20.0))


def made_tracks(folder: Path, count: int, seconds: float) -> list[str]:
    """Paths of made files, wav, flac and mp3 in turn; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        suffix = list(_FORMATS)[number % len(_FORMATS)]
        path = folder / f"{number:02d}-{seconds:g}s{suffix}"
        if not path.exists():
            part = path.with_name(f".part{path.name}")
            soundfile.write(
                part, synthesised(number, seconds), RATE, subtype=_FORMATS[suffix], format=suffix[1:].upper()
            )
            part.rename(path)
        paths.append(str(path))
    return paths


def _throughput(settings: Settings, device: str, policy: str, seconds: float) -> dict[str, Any]:
    if device == "cuda":
        from onnxruntime import get_available_providers

        if "CUDAExecutionProvider" not in get_available_providers():
            raise NotHere("this ONNX Runtime has no CUDA provider")
    state = Path(settings.state)
    paths = made_tracks(state / "audio", 3 if settings.tiny else 12, 4.0 if settings.tiny else 40.0)
    record = bench(
        Request(
            tracks=find(paths),
            scenarios=["offline"],
            bundle=state / "cascade",
            device=device,
            policy=policy,
            options=Options(batch=max(settings.batches), allow_random=True, engines=state / "engines"),
            processes=1,
            max_seconds=seconds,
            min_passes=3 if settings.tiny else 40,
            jobs=settings.jobs,
        )
    )
    save(record, Path(settings.out) / f"cascade-{device}-{policy}.json")
    throughput = next(record.find(part="throughput"))
    decided = Counter(track.decided_by or track.status for track in record.tracks)
    wrong = [f"{run.failed} tracks failed" for run in record.runs if run.failed]
    return {
        "values": {f"cascade {device} {policy} tracks/min": median(throughput.samples)},
        "facts": {
            "decided by": ", ".join(f"{name} {count}" for name, count in decided.items()),
            "lanes": str(settings.jobs),
            "notes": "; ".join(note for each in record.runs for note in each.notes),
        },
        "measures": [msgspec.structs.replace(throughput, subject=policy)],
        "reason": "; ".join(wrong),
    }
