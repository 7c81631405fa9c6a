"""Plans of genres to be written into files: asked for, looked at, approved. They are carried out elsewhere."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass.library import PlanRequest, PlanStep, TagPlan, TagPlans
from edge_reclass_service.bodies import MOST_NAMES, body_as, query_as
from edge_reclass_service.described import Described
from edge_reclass_service.keeping.requests import ERRORS, answer, check_below, keeper_of
from edge_reclass_service.keeping.wire import Number
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import service_of


class Query(msgspec.Struct, frozen=True):
    """Which of the plan's files are shown."""

    offset: Number = 0
    limit: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 1000


class PlanList(msgspec.Struct, frozen=True):
    """Plans, newest first."""

    plans: list[TagPlan]


class PlanSeen(msgspec.Struct, frozen=True):
    """A plan and its files."""

    plan: TagPlan
    steps: list[PlanStep]


async def add(request: Request) -> Response:
    """Have a plan prepared, which takes a while: each file's tags are read. Nothing is written."""
    keeper, settings = keeper_of(request), service_of(request).settings
    wanted = await body_as(request, PlanRequest, MOST_NAMES)
    check_below(settings.roots, wanted.paths)
    number = await keeper.write(lambda state: TagPlans(state).add(wanted))
    keeper.plans.prepare(number, wanted)
    return answer(await _plan(request, number), 202, Location=f"/v1/tag-plans/{number}")


async def listed(request: Request) -> Response:
    """All plans, without their files."""
    return answer(PlanList(await keeper_of(request).read(lambda state: TagPlans(state).plans())))


async def one(request: Request) -> Response:
    """A plan and what it would write."""
    query, number = query_as(request, Query), request.path_params["id"]
    plan = await _plan(request, number)
    steps = await keeper_of(request).read(lambda state: TagPlans(state).steps(number, query.offset, query.limit))
    return answer(PlanSeen(plan, steps))


async def approve(request: Request) -> Response:
    """Approve of a plan. ``edge-reclass tag STATE --apply-approved`` carries it out, or serve --write-tags."""
    keeper, number = keeper_of(request), request.path_params["id"]
    plan = await _plan(request, number)
    if not await keeper.write(lambda state: TagPlans(state).approve(number)):
        raise Problem(409, "plan", f"plan {number} is {plan.status}; only one that is ready can be approved")
    keeper.plans.approved(number)
    return answer(await _plan(request, number))


async def _plan(request: Request, number: int) -> TagPlan:
    found = []
    if number < 1 << 53:
        found = await keeper_of(request).read(lambda state: TagPlans(state).plans(number=number))
    if not found:
        raise Problem(404, "unknown-plan", f"there is no plan {number}")
    return found[0]


ROUTES = [
    Described(
        "POST",
        "/v1/tag-plans",
        add,
        PlanRequest,
        {202: TagPlan, 403: ProblemBody, **ERRORS},
        "Plan genres to be written",
    ),
    Described("GET", "/v1/tag-plans", listed, None, {200: PlanList, **ERRORS}, "All plans, newest first"),
    Described("GET", "/v1/tag-plans/{id:int}", one, None, {200: PlanSeen, **ERRORS}, "A plan's files", query=Query),
    Described(
        "POST",
        "/v1/tag-plans/{id:int}/approve",
        approve,
        None,
        {200: TagPlan, 409: ProblemBody, **ERRORS},
        "Approve of a plan",
    ),
]
