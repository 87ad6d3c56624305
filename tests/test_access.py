"""Every URL x every account: who gets what. A URL without a line in the table fails."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from reviews.models import Review
from runs import access, commands, executor
from runs.models import Run

pytestmark = pytest.mark.django_db
ACCOUNTS = ("stranger", "outsider", "reviewer", "reviewer2", "operator", "admin")

# name -> method and the status for each account in the order above; 302 is "sign in first", or "done" for a POST that redirects
TABLE: dict[str, tuple[str, str]] = {
    "dashboard": ("GET", "302 403 200 200 200 200"),
    "runs": ("GET", "302 403 200 200 200 200"),
    "run": ("GET", "302 403 200 200 200 200"),
    "run_events": ("GET", "302 403 200 200 200 200"),
    "run_part": ("GET", "302 403 200 200 200 200"),
    "cancel_run": ("POST", "302 403 403 403 302 302"),
    "retry_run": ("POST", "302 403 403 403 302 302"),
    "agents": ("GET", "302 403 200 200 200 200"),
    "agent": ("GET", "302 403 200 200 200 200"),
    "start_run": ("GET", "302 403 403 403 200 200"),
    "inbox": ("GET", "302 403 200 200 200 200"),
    "review_list": ("GET", "302 403 200 200 200 200"),
    "review": ("GET", "302 403 200 200 200 200"),
    "review_news": ("GET", "302 403 200 200 200 200"),
    "decide_review": ("POST", "302 403 302 302 302 302"),
    "claim_review": ("POST", "302 403 302 302 302 302"),
    "release_review": ("POST", "302 403 302 302 302 302"),
    "account_login": ("GET", "200 302 302 302 302 302"),
    "account_logout": ("GET", "302 200 200 200 200 200"),
    "account_inactive": ("GET", "200 200 200 200 200 200"),
    "account_change_password": ("GET", "302 200 200 200 200 200"),
    "admin:index": ("GET", "302 302 302 302 302 200"),
    "admin:runs_agentconfig_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:runs_run_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:auth_user_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:django_rq_dashboard_changelist": ("GET", "302 302 302 302 302 200"),
    "healthz": ("GET", "200 200 200 200 200 200"),
    "favicon": ("GET", "302 302 302 302 302 302"),
}


@pytest.fixture
def waiting(db: None) -> Run:
    run = commands.start("guessing", {"text": "hello", "number": 1}, by="operator")
    executor.advance(run.pk, owner="test")
    return run


def arguments(name: str, run: Run) -> list[Any]:
    if name in ("agent", "start_run"):
        return ["guessing"]
    if name == "run_part":
        return [run.pk, "step-1"]
    if name in ("run", "run_events", "cancel_run", "retry_run"):
        return [run.pk]
    if name in ("review", "review_news", "decide_review", "claim_review", "release_review"):
        return [Review.objects.get(run=run).pk]
    return []


def client_of(account: str, people: dict[str, User]) -> Client:
    client = Client()
    if account != "stranger":
        client.force_login(people[account])
    return client


def form(name: str, run: Run) -> dict[str, str]:
    if name != "decide_review":
        return {}
    return {"decision": "approve", "seen": Review.objects.get(run=run).fingerprint}


@pytest.mark.parametrize("name", TABLE)
def test_this_url_for_every_account(name: str, waiting: Run, people: dict[str, User]) -> None:
    if name == "retry_run":
        commands.cancel(waiting.pk, by="")
    before = Run.objects.get(pk=waiting.pk).status
    got = {}
    for account in ACCOUNTS:
        with transaction.atomic():
            got[account] = answered(name, account, waiting, people)
            if account in ("stranger", "outsider"):
                assert Run.objects.get(pk=waiting.pk).status == before, "who is refused changes nothing"
            transaction.set_rollback(True)
    assert got == dict(zip(ACCOUNTS, map(int, TABLE[name][1].split()), strict=True))


def answered(name: str, account: str, waiting: Run, people: dict[str, User]) -> int:
    path = "/favicon.ico" if name == "favicon" else reverse(name, args=arguments(name, waiting))
    client = client_of(account, people)
    answer = client.get(path) if TABLE[name][0] == "GET" else client.post(path, form(name, waiting))
    return answer.status_code


def test_every_url_has_a_line_in_the_table() -> None:
    assert {name for name in names(get_resolver()) if name not in TABLE} == {"readyz"}, "readyz is in test_health"


def names(resolver: URLResolver) -> list[str]:
    """Names of our own pages; the admin's are its own, and all behind the same door."""
    found: list[str] = []
    for one in resolver.url_patterns:
        if isinstance(one, URLResolver):
            found += [] if one.app_name == "admin" else names(one)
        elif isinstance(one, URLPattern) and one.name:
            found.append(one.name)
    return found


def test_reading_changes_nothing(waiting: Run, people: dict[str, User]) -> None:
    client = client_of("admin", people)
    for name in ("cancel_run", "retry_run", "decide_review", "claim_review", "release_review"):
        assert client.get(reverse(name, args=arguments(name, waiting))).status_code == 405
    waiting.refresh_from_db()
    assert waiting.status == "waiting"


def test_what_is_not_there_is_not_found(people: dict[str, User]) -> None:
    client = client_of("admin", people)
    for path in (
        "/runs/999999/",
        "/runs/999999/events/",
        "/reviews/999999/",
        "/agents/nobody/",
        "/agents/nobody/start/",
        "/nowhere/",
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert b"Traceback" not in answer.content


def test_a_post_without_its_token_is_refused(waiting: Run, people: dict[str, User]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["admin"])
    for name in ("cancel_run", "decide_review", "claim_review"):
        assert client.post(reverse(name, args=arguments(name, waiting)), form(name, waiting)).status_code == 403
    assert client.post(reverse("start_run", args=["guessing"]), {"text": "hello"}).status_code == 403


def test_groups_hold_exactly_the_documented_permissions(people: dict[str, User]) -> None:
    for name, permissions in access.GROUPS.items():
        held = Group.objects.get(name=name).permissions.values_list("content_type__app_label", "codename")
        assert {f"{app}.{codename}" for app, codename in held} == set(permissions)


def test_every_page_forbids_inline_script_frames_and_foreign_hosts(people: dict[str, User]) -> None:
    headers = client_of("admin", people).get("/").headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
