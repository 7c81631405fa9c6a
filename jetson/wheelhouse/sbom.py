"""The wheels of a wheelhouse as a CycloneDX 1.6 bill of materials, which scanners of licences and faults read.

A component is a wheel. What is compiled into a wheel, such as FFmpeg in that of av, is not listed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from .contents import PROJECT, Wheel
from .targets import Target

if TYPE_CHECKING:
    from .archive import Source


def sbom_text(target: Target, wheels: list[Wheel], source: Source) -> str:
    """The JSON document; the same arguments give the same text."""
    (own,) = (wheel for wheel in wheels if wheel.name == PROJECT)
    about = _component(own, "application")
    about["properties"] = [{"name": f"{PROJECT}:target", "value": target.name}]
    if source.commit is not None:
        about["properties"].append({"name": f"{PROJECT}:commit", "value": source.commit})
    components = [_component(wheel, "library") for wheel in wheels if wheel.name != PROJECT]
    inside = hashlib.sha256("".join(wheel.sha256 for wheel in wheels).encode()).hexdigest()
    date = datetime.datetime.fromtimestamp(source.date, datetime.timezone.utc)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{PROJECT}:{target.name}:{source.date}:{inside}").urn,
        "version": 1,
        "metadata": {"timestamp": date.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": about},
        "components": components,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _component(wheel: Wheel, kind: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{wheel.name}@{wheel.version.replace('+', '%2B').replace('!', '%21')}"
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": purl,
        "name": wheel.name,
        "version": wheel.version,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "purl": purl,
    }
    if wheel.licence is not None:
        component["licenses"] = [_licence(wheel.licence)]
    return component


def _licence(text: str) -> dict[str, Any]:
    """An SPDX expression where the text is one, else a name such as ``BSD License``."""
    try:
        return {"expression": str(canonicalize_license_expression(text))}
    except InvalidLicenseExpression:
        return {"license": {"name": text}}
