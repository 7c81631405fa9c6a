"""The bill of materials: valid CycloneDX 1.6 by its published schema, and complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wheelhouse.contents import Wheel
from wheelhouse.sbom import sbom_text

from jetson_wheelhouse.wheels import DEBIAN, SOURCE, make_wheels


@pytest.fixture
def wheels(tmp_path: Path) -> list[Wheel]:
    return make_wheels(tmp_path / "wheels")


def document(wheels: list[Wheel]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(sbom_text(DEBIAN, wheels, SOURCE))
    return loaded


def test_every_wheel_is_a_component_with_its_hash(wheels: list[Wheel]) -> None:
    found = document(wheels)
    components = [found["metadata"]["component"], *found["components"]]
    assert [(part["name"], part["version"], part["hashes"][0]["content"]) for part in components] == [
        (wheel.name, wheel.version, wheel.sha256) for wheel in wheels
    ]
    assert [part["type"] for part in components] == ["application", "library", "library", "library"]
    assert components[1]["purl"] == "pkg:pypi/numpy@2.2.6"


def test_a_licence_is_an_expression_where_it_is_one(wheels: list[Wheel]) -> None:
    texts = {"edge-reclass": "Apache-2.0 AND ISC", "numpy": "BSD License", "onnxruntime": "mit", "pip": None}
    wheels = [replace(wheel, licence=texts[wheel.name]) for wheel in wheels]
    found = document(wheels)
    components = [found["metadata"]["component"], *found["components"]]
    assert [part.get("licenses") for part in components] == [
        [{"expression": "Apache-2.0 AND ISC"}],
        [{"license": {"name": "BSD License"}}],
        [{"expression": "MIT"}],
        None,
    ]


def test_it_says_what_it_is_of(wheels: list[Wheel]) -> None:
    found = document(wheels)
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    assert {item["name"]: item["value"] for item in found["metadata"]["component"]["properties"]} == {
        "edge-reclass:target": "debian12",
        "edge-reclass:commit": "c" * 40,
    }
    assert document(wheels)["serialNumber"] == found["serialNumber"]
    assert document(wheels[1:] + wheels[:1])["serialNumber"] != found["serialNumber"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_published_schema_takes_it(wheels: list[Wheel]) -> None:
    pytest.importorskip("jsonschema", reason="needs cyclonedx-python-lib[json-validation] (extra [dev])")
    schema = pytest.importorskip("cyclonedx.schema", reason="needs cyclonedx-python-lib[json-validation] (extra [dev])")
    validation = pytest.importorskip("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    odd = [replace(wheels[1], name="odd", version="1!2+local", licence="LicenseRef-Own"), *wheels]
    for listed in (wheels, odd):
        text = sbom_text(DEBIAN, listed, SOURCE)
        assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"SHA-256"', '"SHA-0"')) is not None
