"""The command that messages name for installing something works on the machine that they are printed on."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from edge_reclass import installing
from edge_reclass.errors import MissingExtraError
from edge_reclass.installing import install_command, pip_command, provisioned


class Origin:
    def __init__(self, content: str | None) -> None:
        self.content = content

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.content


@pytest.fixture
def installed_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(installing, "SETTINGS", tmp_path / "none.conf")

    def set_origin(content: object) -> None:
        text = None if content is None else json.dumps(content)
        monkeypatch.setattr("importlib.metadata.distribution", lambda name: Origin(text))

    return set_origin


def test_from_a_checkout(installed_from, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    checkout = tmp_path / "a check out"
    checkout.mkdir()
    installed_from({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert shlex.split(install_command("tags", "watch")) == [
        *(sys.executable, "-m", "pip", "install"),
        *("-e", f"{checkout}[tags,watch]"),
    ]
    installed_from({"url": checkout.as_uri(), "dir_info": {}})
    assert shlex.split(install_command("cpu"))[-1] == f"{checkout}[cpu]"
    assert "-e" not in shlex.split(install_command("cpu"))


@pytest.mark.parametrize("origin", [None, {}, {"url": "file:///is/not/there"}, {"url": "https://example.org/x.whl"}])
def test_where_the_source_is_gone(installed_from, origin: object) -> None:  # type: ignore[no-untyped-def]
    installed_from(origin)
    assert install_command("cpu") == f"{pip_command()} install '.[cpu]'   (in a checkout of edge-reclass)"


def test_no_package_index_is_asked_for_our_name() -> None:
    """The name is nobody's there: whoever registers it would run code on our advice."""
    assert " edge-reclass" not in install_command("cpu")
    assert " 'edge-reclass" not in str(MissingExtraError("x", "cpu"))


def test_an_appliance_is_provisioned_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "provision.conf"
    monkeypatch.setattr(installing, "SETTINGS", settings)
    assert not provisioned()
    settings.write_text(f"SERVICE_USER=edge-reclass\nPREFIX={Path(sys.prefix).parent}\n")
    assert provisioned()
    assert install_command("cpu").startswith("sudo edge-reclass-appliance provision --yes")
    settings.write_text("PREFIX=/opt/edge-reclass\n")
    assert not provisioned(), "an environment of another place is its owner's"
    assert provisioned("/opt/edge-reclass/venvs/1")
    settings.write_bytes(b"\xff\xfe")
    assert not provisioned()
