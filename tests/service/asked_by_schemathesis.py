"""What the OpenAPI document cannot say: the parameters of the query go with audio/pcm, and with nothing else."""

from __future__ import annotations

from typing import Any

import schemathesis

COMPLETE = {"rate": 8000, "channels": 1, "format": "s16le"}


@schemathesis.hook
def before_call(context: Any, case: Any, *_: Any) -> None:
    generated = case.meta is not None and not case.meta.generation.mode.is_positive
    if case.operation.path != "/v1/classify" or generated:
        return
    case.query = {**COMPLETE, **case.query} if case.media_type == "audio/pcm" else {}
