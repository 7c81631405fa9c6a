"""Tag plans on their way: prepared beside the writer, and carried out by it where it may write tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from edge_reclass.errors import EdgeReclassError
from edge_reclass.library import PlanRequest, State, TagPlans
from edge_reclass_service.keeping.writer import Writer


class Plans:
    """One is prepared at a time; others wait.

    Args:
        write_tags: carry out what was approved, too.
    """

    def __init__(
        self, state: Path, writer: Writer, roots: Sequence[Path], *, write_tags: bool, say: Callable[[str], None]
    ) -> None:
        self._path, self._writer, self._roots, self._write_tags, self._say = state, writer, roots, write_tags, say
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="tag-plans")
        self._stopping = Event()

    def resume(self, state: State) -> None:
        """At the start."""
        TagPlans(state).fail(None, "the service ended while it was prepared; ask again")
        for plan in reversed(TagPlans(state).plans(status="approved")):
            self.approved(plan.id)

    def prepare(self, number: int, request: PlanRequest) -> None:
        """Prepare a plan that was added."""
        self._threads.submit(self._prepare, number, request)

    def approved(self, number: int) -> None:
        """Carry out a plan, where the service was allowed to write tracks."""
        if self._write_tags:
            self._writer.later(lambda state: self._carry_out(state, number))

    def stop(self) -> None:
        """Prepare none any more."""
        self._stopping.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, number: int, request: PlanRequest) -> None:
        try:
            with State.open(self._path) as state:
                steps = TagPlans(state).prepare(request, self._roots, lambda: not self._stopping.is_set())
            if not self._stopping.is_set():
                self._writer.do(lambda state: TagPlans(state).fill(number, steps))
        except Exception as error:
            reason = str(error) if isinstance(error, EdgeReclassError) else f"{type(error).__name__}: {error}"
            self._writer.do(lambda state: TagPlans(state).fail(number, reason))

    def _carry_out(self, state: State, number: int) -> None:
        try:
            done = TagPlans(state).carry_out(number, self._writer.between)
        except EdgeReclassError as error:
            self._say(f"tag plan {number}: {error}")
        else:
            self._say(f"tag plan {number}: {done.written} written, {len(done.left)} left as they were")
