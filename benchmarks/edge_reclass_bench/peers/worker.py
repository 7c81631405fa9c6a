"""One process of ``bench peers``: holds every contest once, and writes events as lines of JSON; see ``worker.py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from edge_reclass.cascade import load_bundle
from edge_reclass.errors import UsageError
from edge_reclass_bench.peers.clips import decoded
from edge_reclass_bench.peers.contest import hold
from edge_reclass_bench.peers.served import service_tasks
from edge_reclass_bench.peers.tasks import encoder_tasks, features_task, file_task
from edge_reclass_bench.record import Peer
from edge_reclass_bench.scenarios.context import Event, Heard, Joined, Opened
from edge_reclass_bench.worker import serve

SECONDS = 30.0


class PeersTask(Struct, frozen=True, kw_only=True):
    """What one process is to measure; ``rates`` are those of the features, in Hz."""

    bundle: str
    paths: list[str]
    tasks: list[str]
    encoders: list[str]
    rates: list[int]
    threads: int
    warm_up: int
    repeats: int


def measure(task: PeersTask) -> Iterator[Event]:
    """Hold the contests in this process.

    Raises:
        UsageError: no track can be decoded, or a library that a task needs is not installed.
        EdgeReclassError: a peer's answers are not ours.
    """
    bundle = load_bundle(task.bundle)
    clips = list(decoded([Path(path) for path in task.paths], SECONDS))
    if not clips:
        raise UsageError(f"none of the {len(task.paths)} tracks can be decoded; name others")
    yield Opened("cpu", [], {}, {}, {})
    seconds = {clip.track: len(clip.samples) / clip.rate for clip in clips}
    yield Heard([seconds.get(track) for track in range(len(task.paths))])
    if "features" in task.tasks:
        for rate in task.rates:
            with ExitStack() as resources:
                yield from hold(features_task(clips, rate, resources), warm_up=task.warm_up, repeats=task.repeats)
    if "encoders" in task.tasks:
        for found in encoder_tasks(bundle, clips, task.threads, task.encoders):
            if isinstance(found, Peer):
                yield Joined(found)
            else:
                yield from hold(found, warm_up=task.warm_up, repeats=task.repeats)
    if "files" in task.tasks:
        with ExitStack() as resources:
            contest = file_task(bundle, clips, task.threads, resources)
            yield from hold(contest, warm_up=task.warm_up, repeats=task.repeats)
    if "service" in task.tasks:
        with ExitStack() as resources:
            for found in service_tasks(bundle, clips, task.threads, task.threads, resources):
                if isinstance(found, Peer):
                    yield Joined(found)
                else:
                    yield from hold(found, warm_up=task.warm_up, repeats=task.repeats)


if __name__ == "__main__":
    serve(PeersTask, measure)
