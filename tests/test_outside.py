"""The outside world, over its socket: what it does once, and the faults it shows on demand."""

import socket
import threading
from io import StringIO

import httpx2
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from agentops.outside import Outside
from agentops.outside.visits import Visit, most_at_once, most_within
from runs.engine.errors import GiveUp, TryLater
from runs.integrations import card_processor, exchange
from runs.models import Dependency
from runs.reliability import slots, terms
from tests.desk import until
from tests.processes import eventually
from tests.world import known_dependencies, plan, seen

__all__ = ["known_dependencies"]


# --- the card processor -------------------------------------------------------------------------------------------


def test_the_same_key_is_one_effect(outside: Outside) -> None:
    first = card_processor.refund_fee("T-1001100", amount_cents=250, key="1:refund_fee")
    again = card_processor.refund_fee("T-1001100", amount_cents=250, key="1:refund_fee")
    assert first == again
    assert seen(outside)["effects"] == {"refunded": 1}
    assert [request["replayed"] for request in outside.seen] == [False, True]


def test_another_key_for_the_same_transaction_is_refused(outside: Outside) -> None:
    card_processor.refund_fee("T-1001100", amount_cents=250, key="1:refund_fee")
    with pytest.raises(GiveUp, match=r"409 Conflict.*T-1001100 was refunded already"):
        card_processor.reverse_charge("T-1001100", amount_cents=250, key="2:reverse_charge")


def test_a_key_that_was_used_for_something_else_is_refused(outside: Outside) -> None:
    card_processor.freeze_card("K-10011", key="1:act")
    with pytest.raises(GiveUp, match=r"422.*used for another request"):
        card_processor.freeze_card("K-10021", key="1:act")


def test_a_request_without_a_key_is_refused(outside: Outside) -> None:
    answer = httpx2.post(f"{outside.url}/v1/cards/K-10011/freeze", json={})
    assert (answer.status_code, answer.json()) == (400, {"detail": "The header Idempotency-Key is missing."})


def test_a_card_is_frozen_then_replaced_and_never_unreplaced(outside: Outside) -> None:
    assert card_processor.freeze_card("K-10011", key="1:a").status == "frozen"
    assert card_processor.replace_card("K-10011", key="1:b").status == "replaced"
    with pytest.raises(GiveUp, match="was replaced and cannot be frozen"):
        card_processor.freeze_card("K-10011", key="1:c")
    assert httpx2.get(f"{outside.url}/v1/cards/K-10011").json() == {"card": "K-10011", "status": "replaced"}


@pytest.mark.parametrize("card", ["K-99999", "K-1", "X-10011", "K-10011/../K-10021"])
def test_a_card_that_nobody_has_is_refused(outside: Outside, card: str) -> None:
    for act in (card_processor.freeze_card, card_processor.replace_card):
        with pytest.raises(GiveUp, match=r"^card-processor: 404 Not Found: There is no"):
            act(card, key="1:a")
    assert outside.card_processor.effects == {}
    assert httpx2.get(f"{outside.url}/v1/cards/K-99999").status_code == 404


def test_a_transaction_that_nobody_made_is_refused(outside: Outside) -> None:
    for act in (card_processor.refund_fee, card_processor.reverse_charge):
        with pytest.raises(GiveUp, match=r"^card-processor: 404 Not Found: There is no transaction T-9999900\.$"):
            act("T-9999900", amount_cents=250, key="1:a")
    assert outside.card_processor.effects == {}


@pytest.mark.parametrize("amount_cents", [0, -5])
def test_an_amount_that_is_none_is_refused(outside: Outside, amount_cents: int) -> None:
    with pytest.raises(GiveUp, match="amount_cents above 0"):
        card_processor.refund_fee("T-1001100", amount_cents=amount_cents, key="1:a")


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"[]", 400), (b"x" * 2_000_001, 413)], ids=["half", "a list", "too large"]
)
def test_a_body_that_cannot_be_read_is_refused(outside: Outside, content: bytes, status: int) -> None:
    assert httpx2.post(f"{outside.url}/v1/refunds", content=content).status_code == status


@pytest.mark.django_db(transaction=True)
def test_sixteen_at_once_with_one_key_are_one_effect(outside: Outside) -> None:
    receipts: list[card_processor.Receipt] = []

    def refund() -> None:
        receipts.append(card_processor.refund_fee("T-1001100", amount_cents=250, key="1:refund_fee"))

    threads = [threading.Thread(target=refund) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(receipts) == 16
    assert len({receipt.reference for receipt in receipts}) == 1
    assert outside.card_processor.effects == {"refunded": 1}


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["429", "500", "503", "reset", "malformed"])
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
def test_a_fault_is_tried_again_and_the_effect_is_one(outside: Outside, kind: str, after: bool) -> None:
    plan(outside, kind, path="/v1/cards", after=after)
    with pytest.raises(TryLater):
        card_processor.freeze_card("K-10011", key="1:freeze_card")
    assert outside.card_processor.effects == ({"frozen": 1} if after else {})
    assert card_processor.freeze_card("K-10011", key="1:freeze_card").status == "frozen"
    assert outside.card_processor.effects == {"frozen": 1}


def test_the_wait_that_the_processor_asks_for_arrives(outside: Outside) -> None:
    plan(outside, "429", retry_after="17")
    with pytest.raises(TryLater) as raised:
        card_processor.freeze_card("K-10011", key="1:freeze_card")
    assert raised.value.retry_after == 17


def test_a_processor_that_hangs_is_left_alone(outside: Outside) -> None:
    Dependency.objects.filter(name="card-processor").update(read_timeout_seconds=0.2)
    terms.forget()
    plan(outside, "hang")
    with pytest.raises(TryLater, match="card-processor: timed out"):
        card_processor.freeze_card("K-10011", key="1:freeze_card")


def test_a_slow_processor_is_waited_for(outside: Outside) -> None:
    plan(outside, "latency", seconds=0.2)
    assert card_processor.freeze_card("K-10011", key="1:freeze_card").status == "frozen"


def test_an_answer_that_drips_keeps_neither_thread_nor_slot(outside: Outside) -> None:
    """Each byte comes within the read timeout, all of them after most of a minute."""
    limited = {"read_timeout_seconds": 0.9, "attempt_timeout_seconds": 1.0, "concurrency": 1}
    Dependency.objects.filter(name="card-processor").update(**limited)
    terms.forget()
    plan(outside, "slow", seconds=0.6)
    with pytest.raises(TryLater):
        card_processor.freeze_card("K-10011", key="1:freeze_card")
    eventually(lambda: slots.holders("card-processor") == [], seconds=15)
    assert card_processor.freeze_card("K-10011", key="1:freeze_card").status == "frozen"


def test_an_answer_without_end_is_not_read(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 20)
    with pytest.raises(GiveUp, match="has more than 20 bytes, so it was not read"):
        card_processor.freeze_card("K-10011", key="1:freeze_card")


def test_a_processor_that_is_gone_is_tried_again(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else gets the port
        settings.CARD_PROCESSOR_URL = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TryLater, match=r"card-processor: .*Connection refused"):
            card_processor.freeze_card("K-10011", key="1:freeze_card")


def test_a_fault_happens_as_often_as_asked_and_only_there(outside: Outside) -> None:
    plan(outside, "500", path="/v1/refunds", count=2)
    card_processor.freeze_card("K-10011", key="1:freeze_card")
    for _ in range(2):
        with pytest.raises(TryLater):
            card_processor.refund_fee("T-1001100", amount_cents=250, key="1:refund_fee")
    card_processor.refund_fee("T-1001100", amount_cents=250, key="1:refund_fee")
    assert [request["fault"] for request in outside.seen] == ["", "500", "500", ""]


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "fire"}, {"kind": "500", "count": 0}, {"what": 1}, {}, {"kind": "200"}, {"kind": 500},
        {"kind": "hang", "seconds": "x"}, {"kind": "hang", "seconds": -1},
        {"kind": "500", "path": 7}, {"kind": "429", "retry_after": 9},
    ],
)  # fmt: skip
def test_a_fault_that_does_not_exist_is_refused(outside: Outside, asked: dict[str, object]) -> None:
    answer = httpx2.post(f"{outside.url}/faults", json=asked)
    assert answer.status_code == 422
    assert httpx2.get(f"{outside.url}/faults").json() == {"faults": []}


def test_faults_can_be_taken_back(outside: Outside) -> None:
    plan(outside, "500", count=5)
    httpx2.delete(f"{outside.url}/faults")
    assert card_processor.freeze_card("K-10011", key="1:freeze_card").status == "frozen"


def test_stopping_ends_what_hangs(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with Outside() as world:
        plan(world, "hang")
        caller = threading.Thread(target=lambda: httpx2.get(f"{world.url}/v1/cards/K-10011"), daemon=True)
        monkeypatch.setattr(threading, "excepthook", lambda args: None)  # the caller is cut off, which is the point
        caller.start()
        until(lambda: world.seen)
    caller.join(timeout=30)
    assert not caller.is_alive()


def test_one_fault_takes_the_place_of_all_others_at_once(outside: Outside) -> None:
    plan(outside, "500", count=5)
    httpx2.put(f"{outside.url}/faults", json={"kind": "429", "count": 5})
    assert [fault["kind"] for fault in httpx2.get(f"{outside.url}/faults").json()["faults"]] == ["429"]


# --- what it saw, and when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "times", "most"),
    [
        (1, [], 0),
        (1, [5.0], 1),
        (1, [5.0, 6.0], 1),  # exactly one window later is another window
        (1, [5.0, 5.9, 6.0, 6.1], 3),
        (1, [5.0, 5.0, 5.0], 3),
        (10, [1.0, 2.0, 10.9, 11.5, 12.5], 3),
    ],
)
def test_the_most_in_any_window(seconds: float, times: list[float], most: int) -> None:
    assert most_within(seconds, times) == most


@pytest.mark.parametrize(
    ("stays", "most"),
    [
        ([], 0),
        ([(1, 2)], 1),
        ([(1, 2), (2, 3)], 1),  # one goes when the other comes
        ([(1, 3), (2, 4), (2.5, 2.6)], 3),
        ([(1, None), (2, None), (3, 4)], 3),  # still being answered
    ],
)
def test_the_most_at_once(stays: list[tuple[float, float | None]], most: int) -> None:
    assert most_at_once(Visit("/", "", at, until) for at, until in stays) == most


def test_visits_are_told_with_their_times_and_can_be_forgotten(outside: Outside) -> None:
    plan(outside, "latency", path="/v1/cards/K-10011", seconds=0.3)
    waits = threading.Thread(target=httpx2.get, args=(f"{outside.url}/v1/cards/K-10011",))
    waits.start()
    until(lambda: outside.visits.told(path="/", window=1)["requests"])
    httpx2.get(f"{outside.url}/v1/cards/K-10021")
    waits.join()
    told = httpx2.get(f"{outside.url}/visits", params={"window": "60", "path": "/v1/cards"}).json()
    assert (told["requests"], told["most_within"], told["most_at_once"]) == (2, 2, 2)
    assert sum(told["per_second"].values()) == 2
    assert [visit["fault"] for visit in told["visits"]] == ["latency", ""]
    assert all(visit["at"] <= visit["until"] for visit in told["visits"])
    assert httpx2.get(f"{outside.url}/visits", params={"path": "/v1/refunds"}).json()["requests"] == 0
    assert httpx2.get(f"{outside.url}/visits", params={"window": "long"}).status_code == 422
    httpx2.delete(f"{outside.url}/visits")
    assert httpx2.get(f"{outside.url}/visits").json()["visits"] == []


# --- the command --------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_in_one_sentence(outside: Outside) -> None:
    port = outside.url.rpartition(":")[2]
    with pytest.raises(CommandError, match=f"cannot listen on 127.0.0.1:{port}.*Choose another port with --port"):
        call_command("outside", "--port", port, stdout=StringIO())


def test_the_command_serves_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(outside: Outside) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Outside, "serve_forever", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    out = StringIO()
    call_command("outside", "--port", "0", stdout=out)
    assert "The outside world listens on http://127.0.0.1:" in out.getvalue()
    assert "has ended" in out.getvalue()
