"""Every URL x every account: who gets what. A URL without a line in the table fails."""

import logging
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils.timezone import now
from structlog.stdlib import ProcessorFormatter

from reviews.models import BulkDecision, Review, SavedView
from runs import access, commands, executor
from runs.models import Alert, AlertRule, BulkAction, Dependency, Run, RunView
from tests import cast

pytestmark = pytest.mark.django_db
ACCOUNTS = ("stranger", "outsider", "reviewer", "reviewer2", "operator", "admin")

# name -> method and the status for each account in the order above; 302 is "sign in first", or "done" for a POST that redirects
TABLE: dict[str, tuple[str, str]] = {
    "dashboard": ("GET", "302 403 200 200 200 200"),
    "about": ("GET", "302 403 200 200 200 200"),
    "runs": ("GET", "302 403 200 200 200 200"),
    "export_runs": ("GET", "302 403 200 200 200 200"),
    "bulk_actions": ("GET", "302 403 200 200 200 200"),
    "preview_bulk_action": ("POST", "302 403 403 403 302 302"),
    "begin_bulk_action": ("POST", "302 403 403 403 302 302"),
    "bulk_action": ("GET", "302 403 200 200 200 200"),
    "stop_bulk_action": ("POST", "302 403 403 403 302 302"),
    "continue_bulk_action": ("POST", "302 403 403 403 302 403"),
    "run_views": ("GET", "302 403 200 200 200 200"),
    "change_run_view": ("POST", "302 403 422 404 404 404"),
    "delete_run_view": ("POST", "302 403 302 404 404 404"),
    "run": ("GET", "302 403 200 200 200 200"),
    "run_events": ("GET", "302 403 200 200 200 200"),
    "compare_runs": ("GET", "302 403 200 200 200 200"),
    "compare_with": ("GET", "302 403 302 302 302 302"),
    "run_part": ("GET", "302 403 200 200 200 200"),
    "cancel_run": ("POST", "302 403 403 403 302 302"),
    "retry_run": ("POST", "302 403 403 403 302 302"),
    "reveal_run": ("POST", "302 403 403 403 403 403"),  # who sees payloads anyway need not: tests/test_payloads_hidden.py
    "hold_run": ("POST", "302 403 403 403 403 302"),
    "release_run": ("POST", "302 403 403 403 403 302"),
    "fork_run": ("GET", "302 403 403 403 200 200"),
    "run_payload": ("GET", "302 403 404 404 404 404"),
    "agents": ("GET", "302 403 200 200 200 200"),
    "agent": ("GET", "302 403 200 200 200 200"),
    "start_run": ("GET", "302 403 403 403 200 200"),
    "dependencies": ("GET", "302 403 200 200 200 200"),
    "operations": ("GET", "302 403 200 200 200 200"),
    "dependency": ("GET", "302 403 200 200 200 200"),
    "force_breaker": ("POST", "302 403 403 403 302 302"),
    "switch_dependency": ("POST", "302 403 403 403 403 302"),
    "send_to_inbox": ("POST", "302 403 403 403 302 302"),
    "alerts": ("GET", "302 403 200 200 200 200"),
    "alert_count": ("GET", "403 403 200 200 200 200"),
    "alert": ("GET", "302 403 200 200 200 200"),
    "alert_rules": ("GET", "302 403 200 200 200 200"),
    "alert_rule": ("GET", "302 403 403 403 403 200"),
    "new_alert_rule": ("GET", "302 403 403 403 403 200"),
    "acknowledge_alert": ("POST", "302 403 403 403 302 302"),
    "snooze_alert": ("POST", "302 403 403 403 302 302"),
    "inbox": ("GET", "302 403 200 200 200 200"),
    "review_list": ("GET", "302 403 200 200 200 200"),
    "review_rows": ("GET", "302 403 200 200 200 200"),
    "saved_views": ("GET", "302 403 200 200 200 200"),
    "change_view": ("POST", "302 403 422 404 404 404"),
    "delete_view": ("POST", "302 403 302 404 404 404"),
    "decisions": ("GET", "302 403 200 200 200 200"),
    "export_decisions": ("GET", "302 403 200 200 200 200"),
    "export_reviews": ("GET", "302 403 200 200 200 200"),
    "review_count": ("GET", "302 403 200 200 200 200"),
    "review": ("GET", "302 403 200 200 200 200"),
    "bulk_preview": ("POST", "302 403 302 302 302 302"),
    "decide_bulk": ("POST", "302 403 302 302 302 302"),
    "bulk_result": ("GET", "302 403 200 200 200 200"),
    "continue_bulk": ("POST", "302 403 302 403 403 403"),
    "undo_bulk": ("POST", "302 403 302 403 403 403"),
    "review_news": ("GET", "302 403 200 200 200 200"),
    "decide_review": ("POST", "302 403 302 302 302 302"),
    "review_keys": ("POST", "302 403 302 302 302 302"),
    "review_steps": ("GET", "302 403 200 200 200 200"),
    "review_conversation": ("GET", "302 403 200 200 200 200"),
    "review_diff": ("POST", "302 403 204 204 204 204"),
    "undo_review": ("POST", "302 403 409 409 409 409"),
    "draft_review": ("POST", "302 403 204 204 204 204"),
    "claim_review": ("POST", "302 403 302 302 302 302"),
    "release_review": ("POST", "302 403 302 302 302 302"),
    "next_review": ("POST", "302 403 302 302 302 302"),
    "review_here": ("POST", "302 403 200 200 200 200"),
    "take_over_review": ("POST", "302 403 422 422 422 422"),
    "reassign_review": ("POST", "302 403 422 422 422 422"),
    "snooze_review": ("POST", "302 403 422 422 422 422"),
    "numbers": ("GET", "302 403 200 200 200 200"),
    "notices": ("GET", "302 403 200 200 200 200"),
    "bell": ("GET", "302 403 200 200 200 200"),
    "read_notices": ("POST", "302 403 302 302 302 302"),
    "notice_settings": ("POST", "302 403 422 422 422 422"),
    "wake_review": ("POST", "302 403 302 302 302 302"),
    "account_login": ("GET", "200 302 302 302 302 302"),
    "account_logout": ("GET", "302 200 200 200 200 200"),
    "account_inactive": ("GET", "200 200 200 200 200 200"),
    "account_reauthenticate": ("GET", "302 200 200 200 200 200"),
    "account_change_password": ("GET", "302 200 200 200 200 200"),
    "admin:index": ("GET", "302 302 302 302 302 200"),
    "admin:runs_agentconfig_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:runs_policy_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:runs_policy_add": ("GET", "302 302 302 302 302 200"),
    "admin:runs_dependency_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:runs_run_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:runs_reveal_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:reviews_route_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:reviews_channel_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:auth_group_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:auth_user_changelist": ("GET", "302 302 302 302 302 200"),
    "admin:django_rq_dashboard_changelist": ("GET", "302 302 302 302 302 200"),
    "healthz": ("GET", "200 200 200 200 200 200"),
    "content_blocked": ("POST", "400 400 400 400 400 400"),
    "favicon": ("GET", "302 302 302 302 302 302"),
}
OF_A_REVIEW = (
    "review_steps",
    "review_conversation",
    "review_diff",
    "undo_review",
    "draft_review",
    "review_here",
    "take_over_review",
    "reassign_review",
    "snooze_review",
    "wake_review",
)


@pytest.fixture
def waiting(db: None) -> Run:
    run = commands.start("guessing", {"text": "hello", "number": 1}, by="operator")
    executor.advance(run.pk, owner="test")
    return run


def arguments(name: str, run: Run) -> list[Any]:
    if name in ("agent", "start_run"):
        return ["guessing"]
    if name in ("export_decisions", "export_reviews", "export_runs"):
        return ["csv"]
    if name in ("change_view", "delete_view", "change_run_view", "delete_run_view"):
        owner, model = User.objects.get(username="reviewer"), RunView if "run" in name else SavedView
        return [model.objects.create(owner=owner, name="Gated ones", query="text=gated").pk]
    if name in ("dependency", "force_breaker", "switch_dependency", "send_to_inbox"):
        return [Dependency.objects.get_or_create(name="bank")[0].name]
    if name in ("alert", "alert_rule", "acknowledge_alert", "snooze_alert"):
        rule = AlertRule.objects.create(name="Queue", measure="queue")
        opened = Alert.objects.create(rule=rule, rule_version=1, title="The queue is long")
        return [rule.pk if name == "alert_rule" else opened.pk]
    if name == "fork_run":
        return [run.pk, 1]
    if name == "run_payload":
        return [run.pk, "0" * 64]
    if name == "run_part":
        return [run.pk, "step-1"]
    if name == "compare_runs":
        return [run.pk, run.pk]
    if name in ("run", "run_events", "compare_with", "cancel_run", "retry_run", "hold_run", "release_run", "reveal_run"):
        return [run.pk]
    if name in ("bulk_action", "stop_bulk_action", "continue_bulk_action"):
        operator = User.objects.get(username="operator")
        return [BulkAction.objects.create(actor=operator, kind="cancel", previewed_at=now(), begun_at=now()).pk]
    if name in ("bulk_result", "continue_bulk", "undo_bulk"):
        return [bulk_of("reviewer", run).pk]
    if name in ("review", "review_news", "decide_review", "claim_review", "release_review", *OF_A_REVIEW):
        return [Review.objects.get(run=run).pk]
    return []


def bulk_of(account: str, run: Run) -> BulkDecision:
    """Of somebody, about the review of that run."""
    actor = User.objects.get(username=account)
    told = {"actor": actor, "kind": "approve", "previewed_at": now(), "begun_at": now()}
    begun = BulkDecision.objects.create(**told)
    begun.items.create(review=Review.objects.get(run=run), seen="")
    return begun


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
    missing = {name for name in names(get_resolver()) if name not in TABLE}
    assert missing == {"readyz", "metrics"}, "these are in test_health and test_metrics"


def names(resolver: URLResolver) -> list[str]:
    """Names of our own pages; the admin's are its own, and all behind the same door."""
    found: list[str] = []
    for one in resolver.url_patterns:
        if isinstance(one, URLResolver):
            found += [] if one.app_name == "admin" else names(one)
        elif isinstance(one, URLPattern) and one.name:
            found.append(one.name)
    return found


@pytest.mark.parametrize(
    "name", ["cancel_run", "retry_run", "decide_review", "undo_review", "claim_review", "release_review", "wake_review"]
)
def test_opening_the_address_of_a_form_changes_nothing_and_leads_to_its_page(
    name: str, waiting: Run, people: dict[str, User]
) -> None:
    client, review = client_of("admin", people), Review.objects.get(run=waiting)
    if name == "retry_run":
        commands.cancel(waiting.pk, by="")
    before = Run.objects.get(pk=waiting.pk)
    answer = client.get(reverse(name, args=arguments(name, waiting)))
    assert (answer.status_code, answer["Location"]) == (
        302,
        f"/runs/{waiting.pk}/" if "run" in name else f"/reviews/{review.pk}/",
    )
    after = Run.objects.get(pk=waiting.pk)
    assert (after.status, after.last_seq) == (before.status, before.last_seq)
    assert Review.objects.get(pk=review.pk).held() is None
    assert access.ONLY_OPENED in client.get(answer["Location"]).text


def test_a_decision_sent_after_the_sign_in_ended_leads_back_to_its_review_and_loses_nothing(
    waiting: Run, people: dict[str, User]
) -> None:
    client, review = Client(), Review.objects.get(run=waiting)
    typed = form("decide_review", waiting) | {"decision": "reject", "reason": "a long explanation"}
    path = f"/reviews/{review.pk}/decision/?cause=low_confidence"
    client.post(path, typed | {"seen": "a guess", "reason": "of a stranger"})
    assert not client.session.keys(), "only what comes from an open page is kept"
    sent = client.post(path, typed)
    assert sent["Location"].startswith("/accounts/login/?next=")
    next_page = parse_qs(urlsplit(sent["Location"]).query)["next"][0]
    words = {"login": "reviewer", "password": cast.PASSWORD, "next": next_page}
    answer = client.post("/accounts/login/", words, follow=True)
    assert answer.redirect_chain[-1] == (f"/reviews/{review.pk}/?cause=low_confidence", 302)
    assert access.ONLY_OPENED in answer.text
    assert "is in the form below" in answer.text
    assert "a long explanation" in answer.text
    assert "of a stranger" not in answer.text
    assert Review.objects.get(pk=review.pk).is_open


@pytest.mark.parametrize("account", ["outsider", "reviewer", "operator"])
def test_the_admin_says_no_to_whoever_is_signed_in_and_no_admin(account: str, people: dict[str, User]) -> None:
    answer = client_of(account, people).get("/admin/runs/run/", follow=True)
    assert answer.status_code == 403
    assert "You may not see or do this" in answer.text
    assert len(answer.redirect_chain) == 1


def test_the_admin_sends_strangers_to_the_sign_in_and_from_there_back(people: dict[str, User]) -> None:
    client = Client()
    answer = client.get("/admin/runs/run/", follow=True)
    assert answer.redirect_chain[-1][0] == "/accounts/login/?next=/admin/runs/run/"
    signed = client.post(
        "/accounts/login/", {"login": "admin", "password": cast.PASSWORD, "next": "/admin/runs/run/"}, follow=True
    )
    assert (signed.status_code, signed.redirect_chain[-1][0]) == (200, "/admin/runs/run/")
    assert client.get("/admin/login/")["Location"] == "/admin/"


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


def test_a_refused_token_is_explained_on_a_page_of_ours(waiting: Run, people: dict[str, User]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["reviewer"])
    path = reverse("decide_review", args=arguments("decide_review", waiting))
    answer = client.post(path, form("decide_review", waiting))
    assert "opened before you signed in again, or its form has expired. Nothing was done." in answer.text
    assert f'href="{path}"' in answer.text
    assert "<style" not in answer.text
    assert client.get(path, follow=True).redirect_chain == [(f"/reviews/{Review.objects.get(run=waiting).pk}/", 302)]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"data": {"reason": "x" * 32_000_001}}, "too large (over 32 MB)"),
        ({"data": {str(number): "" for number in range(1_100)}}, "too many fields"),
        ({"data": b"no boundary", "content_type": "multipart/form-data"}, "could not be read"),
        ({"headers": {"host": "elsewhere.example"}}, "ALLOWED_HOSTS"),
    ],
)
def test_what_cannot_be_taken_in_is_answered_with_a_sentence(sent: Any, said: str, people: dict[str, User]) -> None:
    if isinstance(sent.get("data"), dict):
        sent = {"data": urlencode(sent["data"]), "content_type": "application/x-www-form-urlencoded"}
    answer = client_of("operator", people).post("/agents/guessing/start/", **sent)
    assert answer.status_code == 400
    assert said in answer.text
    assert 'class="topbar"' in answer.text
    assert not Run.objects.exists()


def test_a_refusal_is_one_line_of_the_log_and_a_failure_keeps_its_traceback(
    people: dict[str, User], capture: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of("reviewer", people)
    for path, line in (("/nowhere/", "GET /nowhere/"), ("/agents/guessing/start/", "GET /agents/guessing/start/")):
        client.get(path)
        assert [line in entry for entry in capture] == [True], capture
        capture.clear()
    client.post("/", "x" * 2_600_000, content_type="application/x-www-form-urlencoded")
    assert "Traceback" not in "".join(capture)
    capture.clear()
    monkeypatch.setattr("runs.views.agents.sdk.agents", lambda: 1 / 0)
    client.raise_request_exception = False
    assert client.get("/agents/").status_code == 500
    assert [entry.count("ZeroDivisionError: division by zero") for entry in capture] == [1]


def test_a_run_that_is_gone_is_no_page_and_the_log_says_where_it_was_asked_for(
    people: dict[str, User], capture: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.views.agents.sdk.agents", lambda: Run.objects.get(pk=999_999))
    assert client_of("reviewer", people).get("/agents/").status_code == 404
    (line,) = (entry for entry in capture if "run_gone" in entry)
    assert "/agents/" in line
    assert "DoesNotExist" in line


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log of this process writes, entry by entry."""
    written: list[str] = []
    handler = next(one for one in logging.getLogger().handlers if isinstance(one.formatter, ProcessorFormatter))
    monkeypatch.setattr(handler, "emit", lambda record: written.append(handler.format(record)))
    return written


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
