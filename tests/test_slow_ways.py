"""Where the way to the other side is slow, or its answers drip: no limit is exceeded, and no call goes on for ever."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from apprise.plugins import slack
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_django import Settings

from agentops.outside import Outside
from runs.engine.errors import HeldBack, TryLater
from runs.integrations import bank, card_processor, llm, notices
from runs.models import Dependency
from runs.reliability import slots, terms
from runs.sdk import StepContext, executing
from tests.letterbox import MailServer, Webhook
from tests.processes import eventually
from tests.relay import relay
from tests.shop import set_terms
from tests.world import Reply

pytestmark = pytest.mark.django_db
LIMIT, PERIOD_SECONDS = 4, 0.5
WAITING = 4  # connections that the system itself accepts


def freeze() -> None:
    card_processor.freeze_card("K-10011", key="1:freeze_card")


def write() -> None:
    llm.write(Reply, instructions="Be kind.", prompt="hello")


def connecting(port: int) -> int:
    """How many of this machine have asked that port and were not answered."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


@contextmanager
def unheard(world: Outside, callers: int) -> Iterator[None]:
    """So many call in this block, and are not heard, because the system's own queue is full: they try again after a second."""
    listener, blocking = world._server.socket, [socket.socket() for _ in range(WAITING + 4)]
    listener.listen(WAITING - 1)
    for one in blocking:
        one.setblocking(False)
        with suppress(BlockingIOError):
            one.connect(listener.getsockname())
    port = listener.getsockname()[1]
    before = connecting(port)
    yield
    eventually(lambda: connecting(port) == before + callers)
    time.sleep(PERIOD_SECONDS + 0.05)  # then the window has room for others, and the first have not yet tried again
    for one in blocking:
        one.close()
    listener.listen(128)


@pytest.mark.parametrize(("name", "call"), [("card-processor", freeze), ("model", write)])
def test_who_was_long_on_the_way_does_not_come_beside_those_who_were_let_in_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[[], None]
) -> None:
    """On a busy machine the first may try again too late to meet the others: then once more, until they have met."""
    monkeypatch.setattr(terms, "FRESH_SECONDS", 60.0)  # threads do not see what this test has not committed
    llm.load()
    times = {"connect_timeout_seconds": 10, "read_timeout_seconds": 10, "attempt_timeout_seconds": 25}
    set_terms(name, limit_requests=LIMIT, limit_period_seconds=PERIOD_SECONDS, **times)
    terms.of(name)
    held = list[HeldBack]()

    def come(number: int) -> None:
        while True:
            try:
                with executing(StepContext(f"{number}:call")):
                    return call()
            except HeldBack as error:
                held.append(error)
                time.sleep(error.seconds or 0)

    def they_have_met() -> bool:
        world = Outside()
        settings.CARD_PROCESSOR_URL, settings.AGENTOPS_MODEL_BASE_URL = world.url, f"{world.url}/v1"
        with ThreadPoolExecutor(2 * LIMIT) as pool:
            with unheard(world, LIMIT):
                first = [pool.submit(come, number) for number in range(LIMIT)]
            with world:
                for one in [*first, *(pool.submit(come, number) for number in range(LIMIT, 2 * LIMIT))]:
                    one.result()
        seen = world.visits.told(path="/v1/", window=PERIOD_SECONDS / 2)  # those who came together came within much less
        assert seen["requests"] == 2 * LIMIT
        assert 1 < seen["most_within"] <= LIMIT
        return any("connecting, or this job process" in str(one) for one in held)

    assert any(they_have_met() for _ in range(8))


CUSTOMER = "C-1042"


def test_an_answer_of_a_service_of_apprise_that_drips_ends_with_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    terms.of("channels")
    Dependency.objects.filter(name="channels").update(attempt_timeout_seconds=0.5, concurrency=1)
    terms.forget()
    with Webhook() as service, relay(("127.0.0.1", service.server_address[1]), drips_after=b"POST") as way:
        monkeypatch.setattr(slack.NotifySlack, "webhook_url", f"http://127.0.0.1:{way.port}")
        with pytest.raises(TryLater, match=r"channels.* within 0\.5 s"):
            notices.post("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/", "Hello", "World")
        eventually(lambda: not any(one.name == "guard channels" for one in threading.enumerate()))
    eventually(lambda: not slots.holders("channels"))


@pytest.mark.parametrize("what", ["bank", "mail"])
def test_an_answer_that_drips_ends_with_the_attempt(
    settings: Settings, demo_bank: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each byte comes well within the time that reading may take."""
    terms.of(what)
    Dependency.objects.filter(name=what).update(attempt_timeout_seconds=0.5, concurrency=1)
    terms.forget()
    to: Any
    with MailServer() as letters:
        if what == "bank":
            known = conninfo_to_dict(bank._own_database())
            to = f"{known['host']}/.s.PGSQL.{known.get('port', 5432)}"
        else:
            to = ("127.0.0.1", letters.port)
        with relay(to, drips_after=b"FROM customers" if what == "bank" else b"mail FROM") as way:
            if what == "bank":
                settings.BANK_DATABASE_URL = make_conninfo(bank._own_database(), host="127.0.0.1", port=way.port)
            settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = notices.BY_SMTP, "127.0.0.1", way.port
            with pytest.raises(TryLater, match=rf"{what}.* within 0\.5 s"):
                bank.find_account(CUSTOMER) if what == "bank" else notices.send_mail("ada@example.com", "Hello", "World")
            eventually(lambda: not any(one.name == f"guard {what}" for one in threading.enumerate()))
            eventually(lambda: not slots.holders(what))
