"""The pages of dependencies: how each does, what waits for it, and the buttons that steer it."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from redis.backoff import NoBackoff
from redis.retry import Retry

from runs import dependencies, sdk
from runs.engine.errors import TryLater
from runs.models import AgentConfig, BreakerChange, Dependency, Run
from runs.models.dependency import CHANGEABLE
from runs.reliability import breaker, entry, guard, store, terms
from runs.views import dependencies as dependency_pages
from tests.test_dependencies import carried, set_terms

pytestmark = pytest.mark.django_db
SignedIn = Callable[..., Client]


@pytest.fixture
def signed_in(people: dict[str, User]) -> SignedIn:
    def client(name: str = "operator") -> Client:
        made = Client()
        made.force_login(people[name])
        return made

    return client


def fails() -> None:
    raise TimeoutError("slow")


def open_breaker() -> None:
    set_terms(breaker_minimum_calls=2, breaker_open_seconds=600)
    for _ in range(2):
        with pytest.raises(TryLater):
            guard.call("shop", fails)


def test_the_list_has_what_adapters_declare_before_anything_was_called(signed_in: SignedIn) -> None:
    Dependency.objects.all().delete()  # what threads of other tests have called
    page = signed_in("reviewer").get("/dependencies/").text
    assert 'href="/dependencies/bank/"' in page
    assert 'href="/dependencies/card-processor/"' in page
    assert {"bank", "card-processor", "model", "mail", "channels"} <= terms.DECLARED.keys()  # and what else was imported
    assert page.count("none in the last hour") == len(terms.DECLARED)
    assert "Database" in signed_in("admin").get("/dependencies/bank/").text
    assert signed_in("admin").get("/dependencies/nobody/").status_code == 404
    assert not Dependency.objects.exists(), "looking changes nothing"
    page = signed_in().post("/dependencies/bank/breaker/", {"state": "open", "reason": "first"}, follow=True).text
    assert "The breaker of bank is open now." in page
    Dependency.objects.filter(name="model").delete()
    dependencies.tidy()
    cache.clear()
    dependencies.tidy()
    assert set(Dependency.objects.values_list("name", flat=True)) == terms.DECLARED.keys()
    assert set(AgentConfig.objects.values_list("slug", flat=True)) >= sdk.AGENTS.keys(), "an admin can configure them"
    assert 'id="change"' in signed_in("admin").get("/dependencies/model/").text


def test_the_list_asks_the_database_the_same_for_few_and_many(signed_in: SignedIn, django_assert_max_num_queries: Any) -> None:
    client = signed_in()
    before = client.get("/dependencies/?part=now").text.count("<tr>")
    Dependency.objects.bulk_create(Dependency(name=f"shop-{number}") for number in range(20))
    with django_assert_max_num_queries(6):
        assert client.get("/dependencies/?part=now").text.count("<tr>") == before + 20


def closed() -> None:
    guard.call("shop", lambda: None)


def half_open() -> None:
    set_terms(breaker_minimum_calls=1, breaker_open_seconds=0.1)
    with pytest.raises(TryLater):
        guard.call("shop", fails)
    wanted = terms.of("shop")
    while not isinstance(entry.enter("shop", "", "canary", limits=wanted.limits, terms=wanted.breaker), entry.Entered):
        pass


def recovering() -> None:
    open_breaker()
    carried("buy")
    dependencies.force("shop", "closed", by="admin", reason="they are back")


def off() -> None:
    set_terms(enabled=False)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (closed, "Closed"),
        (open_breaker, "Open"),
        (half_open, "Half-open"),
        (recovering, "Closed, recovering"),
        (off, "Switched off"),
    ],
)
def test_the_state_is_a_word_and_a_shape(make: Callable[[], None], word: str, signed_in: SignedIn) -> None:
    make()
    for address in ("/dependencies/", "/dependencies/shop/", "/dependencies/shop/?part=now"):
        assert f"</svg>{word}</span>" in signed_in().get(address).text, address


def test_the_page_says_what_happened_what_waits_and_who_changed_what(signed_in: SignedIn) -> None:
    open_breaker()
    run = carried("buy")
    set_terms(limit_requests=50, concurrency=4)
    page = signed_in().get("/dependencies/shop/").text
    assert "2 of 2 calls failed within 30 s." in page
    assert f'href="/runs/{run.pk}/"' in page
    assert "The breaker of shop is open (2 of 2 calls failed within 30 s)" in page
    assert "breaker closed → open" in page
    assert "by itself" in page
    assert "Requests per period: not set → 50; Calls at once: not set → 4 <" in page
    assert f">Run {run.pk}</a>: The breaker of shop" in page
    assert '<rect class="failures"' in page
    assert "0 of 50 in 60" in page
    assert "0 of 4 slots are held" in page


def test_an_outage_is_as_old_as_its_beginning_and_the_last_try_stands_beside_it(signed_in: SignedIn) -> None:
    open_breaker()
    began = breaker.look("shop").since
    assert began
    assert "Last try" not in signed_in().get("/dependencies/shop/").text
    store.redis().hset("guard:shop:breaker", "until", 1)  # it is time for a try
    assert breaker.look("shop").since == began
    with pytest.raises(TryLater):
        guard.call("shop", fails)
    look = breaker.look("shop")
    assert look.since
    assert look.since > began
    assert (look.state, look.began, look.last_try) == ("open", began, look.since)
    page = signed_in().get("/dependencies/shop/").text
    assert f'</span>\n since <time datetime="{began.isoformat()}"' in page
    assert f'Last try <time datetime="{look.since.isoformat()}"' in page
    dependencies.force("shop", "open", by="admin", reason="maintenance")
    by_hand = breaker.look("shop")
    assert (by_hand.began, by_hand.last_try) == (by_hand.since, None), "a person opened it when they did"


def test_a_half_open_breaker_is_told_with_the_beginning_of_its_outage(signed_in: SignedIn) -> None:
    half_open()
    look = breaker.look("shop")
    assert look.began
    page = signed_in().get("/dependencies/shop/").text
    assert f'Half-open</span>\n broken since <time datetime="{look.began.isoformat()}"' in page


def test_everything_that_an_admin_may_change_has_words() -> None:
    assert dependency_pages.SAID.keys() == set(CHANGEABLE)


def test_who_holds_a_slot_is_shown_with_a_link(signed_in: SignedIn) -> None:
    set_terms(concurrency=2)
    entry.enter("shop", "desk", "7:freeze_card", limits=terms.of("shop").limits)
    page = signed_in().get("/dependencies/shop/").text
    assert 'href="/runs/7/">Run 7</a>, freeze_card' in page
    assert "1 of 2 slots are held" in page


def test_an_operator_opens_and_closes_the_breaker_with_a_reason(signed_in: SignedIn) -> None:
    terms.of("shop")
    client = signed_in()
    assert "Say why" in client.post("/dependencies/shop/breaker/", {"state": "open"}, follow=True).text
    assert not BreakerChange.objects.exists()
    sent = {"state": "open", "reason": "their maintenance"}
    page = client.post("/dependencies/shop/breaker/", sent, follow=True).text
    assert "The breaker of shop is open now." in page
    assert "by operator" in page
    assert "(their maintenance)" in page
    page = client.post("/dependencies/shop/breaker/", {"state": "closed", "reason": "over"}, follow=True).text
    assert "The breaker of shop is closed now." in page
    assert "closed already" in client.post("/dependencies/shop/breaker/", {"state": "closed", "reason": "x"}, follow=True).text


def test_only_an_admin_switches_it_off_and_on(signed_in: SignedIn) -> None:
    terms.of("shop")
    assert "Switch shop off" not in signed_in().get("/dependencies/shop/").text
    client = signed_in("admin")
    assert "Switch shop off" in client.get("/dependencies/shop/").text
    page = client.post("/dependencies/shop/enabled/", {"enabled": "off"}, follow=True).text
    assert "shop is switched off: runs that need it wait." in page
    assert "Switched on: yes → no" in page
    assert "Switch shop on" in page
    client.post("/dependencies/shop/enabled/", {"enabled": "on"})
    assert Dependency.objects.get(name="shop").enabled
    assert "did not say what is wanted" in client.post("/dependencies/shop/enabled/", follow=True).text
    assert "did not say what is wanted" in client.post("/dependencies/shop/breaker/", {"reason": "x"}, follow=True).text
    assert Dependency.objects.get(name="shop").enabled


def test_what_waits_is_sent_to_the_inbox_as_many_as_were_seen(signed_in: SignedIn) -> None:
    set_terms(enabled=False)
    runs = [carried("buy") for _ in range(3)]
    client = signed_in()
    actions = "/dependencies/shop/?part=actions"
    version = f"{Dependency.objects.get(name='shop').version}"
    assert client.get(f"{actions}&shown={version}-3").status_code == 204, "nothing else may be done than what is shown"
    page = client.get(f"{actions}&shown={version}-2").text
    assert "Send these 3 runs to the inbox" in page
    assert f"shown={version}-3" in page
    sent = {"count": "2", "reason": "today"}
    assert "2 runs are in the inbox now." in client.post("/dependencies/shop/inbox/", sent, follow=True).text
    assert [run.reviews.count() for run in runs] == [1, 1, 0]
    assert "Send this run to the inbox" in client.get("/dependencies/shop/").text
    for strange in ("", "-1", "many", "9" * 30):
        assert "Nothing waits" in client.post("/dependencies/shop/inbox/", {"count": strange}, follow=True).text
    assert Run.objects.filter(waiting_cause="switched_off").count() == 1


@pytest.mark.parametrize("what", ["breaker", "enabled", "inbox"])
def test_an_address_that_is_only_opened_does_nothing(what: str, signed_in: SignedIn) -> None:
    terms.of("shop")
    answer = signed_in("admin").get(f"/dependencies/shop/{what}/", follow=True)
    assert "Nothing was done" in answer.text
    assert signed_in("admin").post(f"/dependencies/none/{what}/").status_code == 404


def test_without_redis_the_pages_say_so_and_the_breaker_stays(signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    terms.of("shop")
    nobody = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(store, "redis", lambda: nobody)
    for address in ("/dependencies/", "/dependencies/shop/"):
        page = signed_in().get(address)
        assert page.status_code == 200
        assert "Redis cannot be reached" in page.text
        assert "</svg>Not known</span>" in page.text
    page = signed_in().post("/dependencies/shop/breaker/", {"state": "open", "reason": "x"}, follow=True).text
    assert "Nothing was changed: Redis" in page


def test_what_a_person_or_an_error_says_is_shown_as_text(signed_in: SignedIn) -> None:
    terms.of("shop")
    dependencies.force("shop", "open", by="operator", reason="<script>alert(1)</script>")
    page = signed_in().get("/dependencies/shop/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_lists_and_the_dashboard_say_for_what_a_run_waits(signed_in: SignedIn, django_assert_num_queries: Any) -> None:
    carried("buy")
    client = signed_in()
    client.get("/runs/")
    with CaptureQueriesContext(connection) as without:
        client.get("/runs/")
    set_terms(enabled=False)
    for _ in range(3):
        carried("buy")
    with django_assert_num_queries(len(without) + 3):  # whichever they are: their steps, open reviews, dependencies
        page = client.get("/runs/").text
    assert page.count(">for shop</a>") == 3
    assert "is held back. shop is switched off: an admin can switch it on again. It tries again at" in page
    dashboard = client.get("/").text
    assert '3 runs wait for <a id="held-shop" href="/dependencies/shop/">shop</a>.' in dashboard
    assert client.get("/agents/buying/").text.count(">for shop</a>") == 3
