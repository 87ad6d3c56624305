"""What the services of channels answer, over real sockets: each through apprise, whose own second tries are off."""

from collections.abc import Iterator
from typing import Any

import pytest
from apprise.plugins import discord, google_chat, opsgenie, pagerduty, slack, telegram, webexteams

from runs.engine.errors import GiveUp, TryLater
from runs.integrations import notices as outside
from tests.letterbox import Webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        yield server


WEBEX = "wxteams://" + "a" * 80
SERVICES = [
    ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/", slack.NotifySlack, "webhook_url", "{}"),
    ("discord://4174296324/4-4-4-token/", discord.NotifyDiscord, "notify_url", "{}"),
    ("tgram://123456789:abcdefg_hijklmnop/12315544/", telegram.NotifyTelegram, "notify_url", "{}/bot"),
    ("gchat://workspace/key/token/", google_chat.NotifyGoogleChat, "notify_url", "{}"),
    (WEBEX, webexteams.NotifyWebexTeams, "notify_url", "{}"),
    ("pagerduty://integration@key/source/component", pagerduty.PAGERDUTY_API_LOOKUP, pagerduty.PagerDutyRegion.US, "{}"),
    ("opsgenie://12345678-1234-1234-1234-123456789012/", opsgenie.OPSGENIE_API_LOOKUP, opsgenie.OpsgenieRegion.US, "{}"),
]


@pytest.mark.parametrize(("url", "owner", "name", "path"), SERVICES, ids=[url.partition(":")[0] for url, *_ in SERVICES])
def test_what_a_service_answers_is_told_apart_and_asked_for_once(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, url: str, owner: Any, name: str, path: str
) -> None:
    """A key that is rejected is no outage, and no client tries again by itself."""
    assert set(outside.SERVICES) == {one.partition(":")[0] for one, *_ in SERVICES} | set(outside.WEBHOOKS)
    put = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    put(owner, name, path.format(f"http://{webhook.at}"))
    for status, kind in ((401, GiveUp), (404, GiveUp), (429, TryLater), (503, TryLater)):
        webhook.status = status
        webhook.posts.clear()
        with pytest.raises(kind, match=rf"error={status}"):
            outside.post(f"{url}?retry=3", "Three reviews", "wait")
        assert len(webhook.posts) == 1
    put(owner, name, path.format("http://127.0.0.1:1"))
    with pytest.raises(TryLater, match=r"(?i)connection error"):
        outside.post(url, "Three reviews", "wait")
