"""All routes of the service; a new module of routes is one line here."""

from __future__ import annotations

from edge_reclass_service.described import Described
from edge_reclass_service.routes import classify, corrections, events, health, lending, scans, tag_plans, verdicts

ALL: list[Described] = [
    *classify.ROUTES,
    *health.ROUTES,
    *scans.ROUTES,
    *verdicts.ROUTES,
    *events.ROUTES,
    *corrections.ROUTES,
    *lending.ROUTES,
    *tag_plans.ROUTES,
]
