"""The documentation: it builds without a warning and without the network, and says what the program says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
GENERATED = {DOCS / "cli.md"}
"""From the program's help, whose sentences are the program's."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="building the docs needs the extra [docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_strictly_and_has_every_page(site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")}
    assert {page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS)} <= built


def test_the_site_loads_nothing_from_the_network(site: Path) -> None:
    """Links may lead elsewhere; what a page needs to be shown lies beside it."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?([^\"'\s>]+)", text)
        links = [link for link in re.findall(r"<link\b[^>]*>", text) if re.search(r"stylesheet|icon|preload", link)]
        loaded += [found.group(1) for link in links if (found := re.search(r"\bhref=[\"']?([^\"'\s>]+)", link))]
        assert loaded, page
        for address in loaded:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name}: {address}"
            assert (page.parent / address.split("?")[0]).resolve().exists() or page.name == "404.html", address
    assert (site / "search" / "search_index.js").exists(), "the search works without a server"


def test_the_api_reference_has_what_the_package_offers(site: Path) -> None:
    import edge_reclass
    from edge_reclass import errors

    text = (site / "api.html").read_text(encoding="utf-8")
    raised = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    for word in {*edge_reclass.__all__, *raised} - {"__version__", "load_bundle"}:
        assert re.search(rf'id="edge_reclass[\w.]*\.{word}"', text), word
    assert not re.search(r":(?:class|meth|func|data):", text), "roles of reStructuredText are no Markdown"


def test_the_command_line_page_is_what_the_program_prints() -> None:
    """Written with the pinned typer: another version may wrap its help in another way."""
    pytest.importorskip("mkdocs", reason="the page is made where the docs are built (extra [docs])")
    command = [sys.executable, str(DOCS / "_scripts" / "cli_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def paragraphs(text: str) -> Iterator[str]:
    """Text without code, headings and comments; each paragraph, list item and table cell by itself."""
    text = re.sub(r"^```.*?^```$", "\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        row = line.lstrip().startswith("|")
        if not line.strip() or row or line.startswith(("#", ":::", "![")) or re.match(r"\s*(?:[-*]|\d+\.) ", line):
            yield " ".join(block)
            block = []
        if row:
            yield from re.split(r"(?<!\\)\|", line)
        elif not line.startswith(("#", ":::", "![")):
            block.append(line.strip())
    yield " ".join(block)


def sentences(text: str) -> Iterator[str]:
    for paragraph in paragraphs(text):
        plain = re.sub(r"`[^`]*`", "code", paragraph)
        plain = re.sub(r"\]\([^)]*\)", "]", plain)
        yield from re.split(r"(?<=[.!?])[)*\"]*\s+(?=[\w\[*(\"])", plain)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page: Path) -> None:
    if page in GENERATED:
        pytest.skip("made from the program's help")
    text = page.read_text(encoding="utf-8").split("Measured by\n")[0]  # the generated list of commands
    long = [s for s in sentences(text) if sum(bool(re.search(r"\w", word)) for word in s.split()) >= 30]
    assert long == [], "sentences of 30 words or more"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_sends_a_reader_to_what_is_not_in_the_repository(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for outside in ("../shared", "../synthetic"):
        assert outside not in text, outside
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:benchmarks|constraints|docs|export|jetson|runtime|tests)/[\w./-]+)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_have_their_present_names(page: Path) -> None:
    import importlib

    text = page.read_text(encoding="utf-8")
    for dotted in sorted(set(re.findall(r"\bedge_reclass(?:_doctor|_export|_bench)?(?:\.[a-z_]\w*)+", text))):
        if dotted in {"edge_reclass.commands"}:  # the group of entry points
            continue
        module, _, attribute = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), dotted


def test_stored_records_hold_no_absolute_paths() -> None:
    for record in (ROOT / "benchmarks" / "results").iterdir():
        text = record.read_text(encoding="utf-8")
        assert not re.search(r"[\"' =](?:/[a-z]\w*/|\.\./)\w", text), record.name
