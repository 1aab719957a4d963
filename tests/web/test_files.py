"""The studio's files: what they are served with, what they refer to, whether they fit together."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from orchestrator.api import problems, studio
from orchestrator.errors import MuseTalkError

SCRIPTS = sorted(studio.FOLDER.rglob("*.js"))
WORDS = {language: studio.FOLDER / f"words-{language}.js" for language in ("en", "fr")}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    service: Any = None  # the studio asks only the public interface
    app = FastAPI()
    problems.install(app)
    app.include_router(studio.router(service))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as one:
        yield one


async def test_the_page_and_all_that_it_names_are_there(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="(/[^"]+)"', page.text)
    assert len(named) >= 5
    for path in named:
        file = await client.get(path)
        assert file.status_code == 200, path
        assert "immutable" in file.headers["cache-control"]


async def test_the_policy_allows_nothing_inline_and_nobody_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    for directive, value in policy.items():
        assert "unsafe" not in value, directive
        assert "*" not in value and "http" not in value, directive
    assert "<style" not in page.text and " style=" not in page.text
    assert not re.search(r"<script(?![^>]*\ssrc=)", page.text)
    assert not re.search(r"\son\w+=", page.text)


async def test_a_browser_that_has_a_file_gets_only_304(client: httpx.AsyncClient) -> None:
    first = await client.get("/")
    again = await client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == studio.CONTENT_SECURITY_POLICY


async def test_files_are_compressed_for_those_who_understand(client: httpx.AsyncClient) -> None:
    packed = await client.get("/", headers={"Accept-Encoding": "gzip"})
    plain = await client.get("/", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


@pytest.mark.parametrize(
    "path", ["0000000000000000/main.js", "{v}/nothing.js", "{v}/%2e%2e/studio.py", "{v}/index.html"]
)
async def test_other_files_and_other_versions_are_not_there(
    client: httpx.AsyncClient, path: str
) -> None:
    page = await client.get("/")
    version = re.findall(r"/studio/(\w+)/main\.js", page.text)[0]
    assert (await client.get(f"/studio/{path.format(v=version)}")).status_code == 404


def test_no_file_names_another_host() -> None:
    for path in studio.FOLDER.rglob("*"):
        if path.is_file():
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://[\w.]", text), path


def test_imports_lead_to_files() -> None:
    for script in SCRIPTS:
        for name in re.findall(r'^import .*?from "(.+?)";', script.read_text(), re.MULTILINE):
            assert (script.parent / name).is_file(), f"{script.name}: {name}"


def test_nothing_becomes_markup() -> None:
    for script in SCRIPTS:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text()
        ), script.name


def words(language: str) -> dict[str, str]:
    return dict(re.findall(r'^  "([\w.]+)": "(.*)",$', WORDS[language].read_text(), re.MULTILINE))


def test_both_languages_say_the_same_things() -> None:
    english, french = words("en"), words("fr")
    assert list(english) == list(french)
    assert len(english) > 100
    for name, text in english.items():
        assert text and french[name]
        holes = re.findall(r"\{\w+\}", text)
        assert sorted(holes) == sorted(re.findall(r"\{\w+\}", french[name])), name


def test_each_error_of_the_service_has_a_french_sentence() -> None:
    def codes(error: type[MuseTalkError]) -> set[str]:
        return {error.code}.union(*map(codes, error.__subclasses__()))

    refusals = (studio.FOLDER / "refusals-fr.js").read_text()
    assert set(re.findall(r"^  (\w+): ", refusals, re.MULTILINE)) == codes(MuseTalkError)
    assert not re.search(r" [:;?!»%]|« ", refusals), "a space that may break"


def test_french_signs_do_not_begin_a_line() -> None:
    for name, text in words("fr").items():
        assert not re.search(r" [:;?!»%]|« ", text), f"{name}: a space that may break"


def test_every_text_that_is_asked_for_exists() -> None:
    english = words("en")
    sources = "\n".join(path.read_text() for path in [*SCRIPTS, studio.FOLDER / "index.html"])
    asked = set(re.findall(r'\bt\(\s*"([\w.]+)"', sources))
    asked |= set(re.findall(r'data-t(?:-label)?="([\w.]+)"', sources))
    assert len(asked) > 60
    for name in asked:
        assert name in english or f"{name}.other" in english, name


def test_every_element_that_is_asked_for_is_in_the_page() -> None:
    page = (studio.FOLDER / "index.html").read_text()
    ids = set(re.findall(r'id="([\w-]+)"', page))
    for script in SCRIPTS:
        for name in re.findall(r'\$\("([\w-]+)"\)', script.read_text()):
            assert name in ids, f"{script.name}: {name}"


def test_scripts_are_small_enough_to_read() -> None:
    total = 0
    for script in SCRIPTS:
        lines = len(script.read_text().splitlines())
        total += script.stat().st_size
        assert lines <= 320, f"{script.name} has {lines} lines"
    assert total < 160_000
