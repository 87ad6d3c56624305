"""Chromium against the real web process, on the PostgreSQL and Redis of this test session.

A test gets `sign_in("operator", width=390)` -> a page, `act(function, ...)` for whatever touches the database or the engine
(Playwright's event loop occupies the test's own thread), `carry` to advance every due run, `opened("guessing", "a text")` ->
the review at which a new run stops, and `accessible(page)`, which looks at it in both themes.
"""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from reviews.models import Review
from runs import commands, executor
from runs.models import Run
from tests import agents, processes

CHROMIUM = "/usr/bin/chromium"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]
IN_DARK = ["color-contrast", "link-in-text-block"]  # what else axe judges does not depend on the theme
VIOLATIONS = "rules => axe.run({ runOnly: rules, resultTypes: ['violations'] }).then(found => found.violations)"
CHEAPLY = ["--no-sandbox", "--disable-gpu", "--renderer-process-limit=1"]  # pages are judged, not how Chromium parts them
expect.set_options(timeout=30_000)  # a machine may be slow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in filter(_is_of_a_browser, items):
        item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.django_db(transaction=True))


def _is_of_a_browser(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Ended with its module: while Playwright's event loop is in the thread, no async test can run, and one may come next."""
    if not shutil.which(CHROMIUM):
        said = f"Browser tests need {CHROMIUM}: apt-get install chromium."
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # fixtures share the thread with Playwright's event loop
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHEAPLY)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(django_db_setup: None) -> Iterator[str]:
    """Where the web process of this session answers."""
    with web() as url:
        yield url


@contextmanager
def web(**more: str) -> Iterator[str]:
    """A web process, with more in its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "tests.browser.site:application", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=processes.ROOT, env=processes.environment(**more), start_new_session=True)
    try:
        processes.eventually(lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}/healthz"))
        assert process.poll() is None, "the web process ended at its start; its words are above"
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.kill(process)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def act(transactional_db: None) -> Iterator[Callable[..., Any]]:
    """Call a function in a thread of its own, where there is no event loop, and return what it returns."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield lambda function, *args, **kwargs: thread.submit(function, *args, **kwargs).result(timeout=60)
        thread.submit(connections.close_all).result(timeout=60)


@pytest.fixture
def carry(act: Callable[..., Any]) -> Callable[[], None]:
    """Advance every run that is due until none is, as a job process would."""

    def all_due() -> None:
        while due := list(Run.objects.due().values_list("pk", flat=True)):
            for run_id in due:
                executor.advance(run_id, owner="test")

    return lambda: act(all_due)


@pytest.fixture(scope="module")
def browsers(chromium: Browser, address: str) -> Iterator[Callable[..., BrowserContext]]:
    """For each account a browser of its own, which the tests of a module share: what it has loaded once it keeps."""
    kept: dict[tuple[str, bool], BrowserContext] = {}

    def browser(name: str, *, script: bool, own: bool) -> BrowserContext:
        if own or (name, script) not in kept:
            made = chromium.new_context(base_url=address, java_script_enabled=script, reduced_motion="reduce")
            if own:
                return made
            kept[name, script] = made
        return kept[name, script]

    yield browser
    for context in kept.values():
        context.close()


@pytest.fixture
def sign_in(
    browsers: Callable[..., BrowserContext], address: str, act: Callable[..., Any], people: dict[str, User]
) -> Iterator[Callable[..., Page]]:
    """Open a page in the browser of an account, or in one that is its `own`: where the clock is moved or something is kept.

    Whatever the content security policy refuses fails the test.
    """
    pages, problems = [], []

    def open_page(name: str = "", *, theme: str = "light", width: int = 1280, script: bool = True, own: bool = False) -> Page:
        context = browsers(name, script=script, own=own)
        if name:
            context.add_cookies([{"name": "sessionid", "value": act(_session, people[name]), "url": address}])
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        pages.append((page, own))
        return page

    yield open_page
    for page, own in pages:
        page.context.close() if own else page.close()
    for page, own in pages:
        if not own:
            page.context.clear_cookies()
    assert not problems


def _session(person: User) -> str:
    client = Client()
    client.force_login(person)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture
def opened(act: Callable[..., Any]) -> Callable[..., Review]:
    """The review at which a new run of the agent stops."""

    def make(slug: str, text: str = "a message", number: int = 3) -> Review:
        run = commands.start(slug, {"text": text, "number": number}, by="operator")
        executor.advance(run.pk, owner="test")
        return Review.objects.select_related("run").open().get(run=run)

    return lambda *args, **kwargs: act(make, *args, **kwargs)


@pytest.fixture
def output(act: Callable[..., Any], carry: Callable[[], None]) -> Callable[[Review], Any]:
    """What the run of the review came to."""

    def of(review: Review) -> Any:
        carry()
        return act(Run.objects.get, pk=review.run_id).output

    return of


@pytest.fixture
def accessible() -> Callable[[Page], None]:
    """Fail with the violations that axe finds on the page, as it stands in light and in dark."""

    def check(page: Page) -> None:
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE_SCRIPT)
        for theme, rules in (("light", STANDARDS), ("dark", IN_DARK)):
            page.emulate_media(color_scheme=theme)
            found = page.evaluate(VIOLATIONS, rules)
            assert not found, (
                page.url,
                theme,
                [(one["id"], [f"{node['html'][:200]} | {node['failureSummary']}" for node in one["nodes"]][:3]) for one in found],
            )

    return check


__all__ = ["agents"]
