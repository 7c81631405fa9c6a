"""What the service counts, for Prometheus. No path is ever a label."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from edge_reclass import Verdict, __version__

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        info = Info("edge_reclass", "The program.", registry=self.registry)
        info.info({"version": __version__})
        self._tracks = Counter(
            "edge_reclass_tracks",
            "Tracks classified, by status and by the stage that decided.",
            ["status", "stage"],
            registry=self.registry,
        )
        self._stages = Histogram(
            "edge_reclass_stage_seconds",
            "What a stage took of one track.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._decoding = Histogram(
            "edge_reclass_decode_seconds", "Until a track was open.", buckets=_SECONDS, registry=self.registry
        )
        self._requests = Counter(
            "edge_reclass_requests",
            "Requests answered, by route and status code.",
            ["method", "route", "code"],
            registry=self.registry,
        )
        self._received = Counter(
            "edge_reclass_received_bytes", "Audio received in bodies of requests.", registry=self.registry
        )

    def verdict(self, verdict: Verdict) -> None:
        """A track was classified, whoever asked for it; from any thread."""
        self._tracks.labels(verdict.status, verdict.decided_by or "").inc()
        for stage in verdict.stages:
            self._stages.labels(stage.name).observe(stage.milliseconds / 1e3)
        if verdict.decode_milliseconds is not None:
            self._decoding.observe(verdict.decode_milliseconds / 1e3)

    def request(self, method: str, route: str, code: int) -> None:
        """A request was answered; ``route`` is the pattern, never the address."""
        self._requests.labels(method, route, str(code)).inc()

    def received(self, count: int) -> None:
        """So many bytes of audio came in a body."""
        self._received.inc(count)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge ``edge_reclass_NAME`` that is read when somebody asks."""
        Gauge(f"edge_reclass_{name}", text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)
