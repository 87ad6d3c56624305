"""What a run is about is told to nobody who may not look, by no page, socket, file, figure, message or line of the log."""

import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from pytest_django import Settings
from structlog.testing import capture_logs

from reviews import digest, notices
from reviews.models import Notice, NoticeSettings, Review
from runs import commands, executor, sdk
from runs.alerts import evaluation, rules
from runs.models import Alert, Run
from tests import agents
from tests.test_access import TABLE, arguments, form, reverse

pytestmark = pytest.mark.django_db
CANARY = "canary-4111-1111"
STRANGERS = ("stranger", "outsider")


@pytest.fixture
def told(people: dict[str, User]) -> Run:
    """In its input, its output, an error, a question and a reason; and where it waits."""
    agents.FAILURES[CANARY] = [sdk.AskHuman(CANARY)]
    for slug in ("asking", "stumbling", "guessing", "counting"):
        run = commands.start(slug, {"text": CANARY, "number": 3}, by="operator")
        executor.advance(run.pk, owner="test")
    run = Run.objects.get(agent="guessing")
    commands.cancel(Run.objects.get(agent="asking").pk, by="operator", reason=CANARY)
    return run


@pytest.mark.parametrize("account", STRANGERS)
def test_no_address_tells_it_to_who_may_not_look(account: str, told: Run, people: dict[str, User]) -> None:
    client = Client()
    if account != "stranger":
        client.force_login(people[account])
    seen = 0
    for name in TABLE:
        for ask in (client.get, client.post):
            with transaction.atomic():
                path = "/favicon.ico" if name == "favicon" else reverse(name, args=arguments(name, told))
                answer = ask(path, form(name, told) | {"text": "canary"})
                transaction.set_rollback(True)
            body = b"".join(answer.streaming_content) if answer.streaming else answer.content
            assert CANARY.encode() not in body, (name, account)
            assert CANARY not in str(answer.headers), (name, account)
            seen += answer.status_code in (302, 403, 405, 400, 404) or name.startswith(("account", "healthz"))
    assert seen == 2 * len(TABLE)


def test_no_message_figure_or_line_of_the_log_tells_it(
    told: Run, people: dict[str, User], settings: Settings, caplog: Any
) -> None:
    admin = Client()
    admin.force_login(people["admin"])
    assert CANARY in admin.get(f"/runs/{told.pk}/").text, "it is there to be told"
    settings.METRICS_TOKEN = "a-long-token"
    rules.ensure_built_in()
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        notices.tell_due()
        pace = NoticeSettings.of(people["reviewer"])
        waiting = list(Notice.objects.filter(user=people["reviewer"]).select_related("review"))
        message = digest.subject(waiting) + digest.text(waiting, pace)
        if evaluation.take_round():
            evaluation.make_round()
        figures = Client().get("/metrics", headers={"Authorization": "Bearer a-long-token"}).text
        ready = Client().get("/readyz").text
    assert waiting
    assert "agentops_" in figures
    alerts = [str(alert.evidence) + alert.title for alert in Alert.objects.all()]
    for where in (message, figures, ready, str(logs), caplog.text, *alerts):
        assert CANARY not in where
    assert Review.objects.open().exists()
