"""Two different people, what is of high risk, and for whom a review is: held at the service, whoever asks."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils.html import strip_tags

from reviews import choices, decisions, eligibility, groups, history
from reviews.confirmation import SIGNED_IN_AT
from reviews.models import Decision, Review, Risk
from runs import commands, describe, event_log, executor, policies
from runs.engine.events import Kind
from tests import cast
from tests.cast import PASSWORD
from tests.processes import eventually
from tests.test_act import asked
from tests.test_decisions import GOOD, at_once, decide, decided_events, finished, opened

pytestmark = pytest.mark.django_db


def for_two(slug: str = "guessing", *, by: str = "operator") -> Review:
    run = commands.start(slug, {"text": "hello", "number": 3}, by=by)
    executor.advance(run.pk, owner="test")
    Review.objects.filter(run=run).update(approvals=2)
    return Review.objects.get(run=run)


def seen(review: Review) -> str:
    return decisions.seen(review, decisions.pending(review))


def test_the_second_approval_is_somebody_elses_and_lets_the_run_go_on(people: dict[str, User]) -> None:
    review = for_two()
    first = decide(review, "approve", by="reviewer")
    assert (first.final, first.effective_at, review.decision) == (False, None, None)
    assert finished(review).status == "waiting"
    assert decide(review, "approve", by="reviewer").pk == first.pk, "a second click is not a second person"
    with pytest.raises(decisions.NotYours, match="somebody else's"):
        decide(review, "approve", by="reviewer", seen=seen(review))
    with pytest.raises(decisions.Stale):
        decide(review, "approve", by="reviewer2")  # who has not seen that somebody approved it
    second = decide(review, "approve", by="reviewer2", seen=seen(review))
    assert (second.final, review.decision) == (True, second)
    assert finished(review).output == {"said": "red 5"}
    assert decided_events(review)[0]["agreed"] == ["reviewer"]
    assert review.decisions.count() == 2


def test_an_edit_begins_anew_and_the_second_approves_exactly_that(people: dict[str, User]) -> None:
    review = for_two()
    decide(review, "approve", by="reviewer")
    stale = seen(review)
    edited = decide(review, "edit", by="reviewer2", value=GOOD, seen=stale)
    assert decisions.pending(review) == edited
    with pytest.raises(decisions.Stale):
        decide(review, "approve", by="admin", seen=stale)
    decide(review, "approve", by="reviewer", seen=seen(review))  # whose own approval was of something else
    assert finished(review).output == {"said": "green 12.5"}
    event = decided_events(review)[0]
    assert (event["decision"], event["value"], event["agreed"]) == ("edit", GOOD, ["reviewer2"])


def test_one_person_is_enough_to_reject_and_may_take_an_approval_back(people: dict[str, User]) -> None:
    review = for_two()
    decide(review, "approve", by="reviewer")
    decisions.undo(review.pk, actor=people["reviewer"])
    assert decisions.pending(review) is None
    decide(review, "approve", by="reviewer")
    decide(review, "reject", by="reviewer2", reason="No.", seen=seen(review))
    assert finished(review).status == "failed"
    other = for_two()
    decide(other, "approve", by="reviewer")
    decide(other, "reject", by="reviewer", reason="On second thoughts, no.", seen=seen(other))
    assert finished(other).status == "failed"


def test_who_started_the_run_or_wrote_its_rule_is_none_of_the_two(people: dict[str, User]) -> None:
    review = for_two(by="reviewer")
    with pytest.raises(decisions.NotYours, match="started this run"):
        decide(review, "approve", by="reviewer")
    commands.configure("guessing", by="admin", threshold=0.9)
    with pytest.raises(decisions.NotYours, match="last change of the rule"):
        decide(review, "approve", by="admin")
    assert not Decision.objects.exists()
    decide(review, "reject", by="reviewer", reason="I changed my mind.")


def test_who_wrote_the_policy_or_the_threshold_is_barred_and_who_changed_another_thing_is_not(people: dict[str, User]) -> None:
    commands.configure("guessing", by="reviewer", threshold=0.9)
    policies.configure(by="reviewer2", agent="guessing", approvals=2)
    review = opened("guessing")
    commands.configure("guessing", by="admin", attempts=5)
    assert review.approvals == 2
    another = opened("asking")
    for name in ("reviewer", "reviewer2"):
        with pytest.raises(decisions.NotYours, match="last change of the rule"):
            decide(review, "approve", by=name)
        assert list(groups.asked(Review.objects.all(), people[name])) == [another], "nor is it offered to them"
    assert review in groups.asked(Review.objects.all(), people["admin"])
    assert not decide(review, "approve", by="admin").final, "it was no rule that they changed"
    commands.configure("guessing", by="admin", threshold=0.7)
    assert decisions.pending(review) is None, "now it was"
    with pytest.raises(decisions.NotYours, match="last change of the rule"):
        decide(review, "approve", by="reviewer")


def let_go_on(review: Review) -> list[str]:
    return [kind for kind in review.allowed if eligibility.lets_go_on(review, kind)]


@pytest.mark.parametrize("barred", ["starter", "author"])
@pytest.mark.parametrize(("slug", "left"), [("paying", "reject"), ("asking", "reject"), ("guessing", "send_back")])
def test_who_is_barred_is_shown_what_the_server_lets_them_do_and_no_more(
    people: dict[str, User], barred: str, slug: str, left: str
) -> None:
    review = for_two(slug, by="reviewer" if barred == "starter" else "operator")
    if barred == "author":
        commands.configure(slug, by="reviewer", threshold=0.9)
    client = Client()
    client.force_login(people["reviewer"])
    html = page(client, review)
    kept = [kind for kind in review.allowed if kind not in let_go_on(review)]
    assert re.findall(r'name="decision" value="(\w+)"', html) == kept
    assert left in kept
    assert html.count("You may still ") == 1
    assert not re.search(r'data-key="[aeoq]"', html), "nor is there a key for it"
    for kind in let_go_on(review):  # by hand, with the true fingerprint
        assert post(client, review, kind, reason="By hand.").status_code == 403
        with pytest.raises(decisions.NotYours):
            decide(review, kind, by="reviewer", reason="By hand.", seen=seen(review))
    assert not Decision.objects.exists()


def test_of_a_sample_whoever_is_barred_may_still_say_that_it_was_wrong(people: dict[str, User]) -> None:
    review = for_two("paying", by="reviewer")
    sentence = eligibility.Eligibility(review, people["reviewer"]).why_not("approve")
    assert sentence.endswith(" You may still reject it.")
    review.cause = "sample"
    sentence = eligibility.Eligibility(review, people["reviewer"]).why_not("approve")
    assert sentence.endswith(" You may still say that it was wrong.")


def test_who_approved_first_is_told_that_an_edit_takes_the_place_of_it(people: dict[str, User]) -> None:
    review = for_two()
    decide(review, "approve", by="reviewer")
    client = Client()
    client.force_login(people["reviewer"])
    html = page(client, review)
    assert re.findall(r'name="decision" value="(\w+)"', html) == ["edit", "reject", "send_back"]
    assert html.count("You have approved it. Somebody else must approve it too.") == 1
    assert "It takes the place of the approval by reviewer, and somebody else must approve it." in html
    assert post(client, review, "edit", value__colour="green", value__amount="7").status_code == 302
    first = decisions.pending(review)
    assert first is not None
    assert (first.kind, first.actor.username, review.decision) == ("edit", "reviewer", None)


def test_what_the_first_edited_can_be_put_back_and_is_no_correction_then(people: dict[str, User]) -> None:
    review = for_two()
    decide(review, "edit", by="reviewer", value=GOOD)
    back = decide(review, "edit", by="reviewer2", value=review.proposal, seen=seen(review))
    assert (back.kind, back.value, back.final) == ("approve", None, False)
    decide(review, "approve", by="reviewer", seen=seen(review))
    event = decided_events(review)[0]
    assert (event["decision"], event["agreed"]) == ("approve", ["reviewer2"])
    assert finished(review).output == {"said": "red 5"}


@pytest.mark.parametrize("lost", ["account", "rule"])
def test_a_first_approval_counts_only_while_whoever_gave_it_may_give_it(people: dict[str, User], lost: str) -> None:
    review = for_two()
    first = decide(review, "approve", by="reviewer")
    shown = seen(review)
    if lost == "account":
        User.objects.filter(username="reviewer").update(is_active=False)
    else:
        commands.configure("guessing", by="reviewer", threshold=0.9)
    with pytest.raises(decisions.Stale):
        decide(review, "approve", by="reviewer2", seen=shown)
    assert not decide(review, "approve", by="reviewer2").final, "it is the first now"
    first.refresh_from_db()
    assert (first.revoked_at is not None, first.revoked_by) == (True, None)
    assert decide(review, "approve", by="admin", seen=seen(review)).final
    assert finished(review).output == {"said": "red 5"}
    assert "“Approved” by reviewer no longer counts" in [line.did for line in history.lines(review)]


def test_the_history_names_who_took_a_decision_back(people: dict[str, User]) -> None:
    review = opened("guessing")
    decide(review, "approve", undo_seconds=600)
    decisions.undo(review.pk, actor=people["admin"])
    two = for_two()
    decide(two, "approve", by="reviewer")
    decide(two, "edit", by="reviewer2", value=GOOD, seen=seen(two))
    taken = [(line.who, line.did) for one in (review, two) for line in history.lines(one) if "back" in line.did]
    assert taken == [("admin", "took “Approved” by reviewer back"), ("reviewer2", "took “Approved” by reviewer back")]


def test_at_high_risk_nobody_approves_a_request_of_their_own_nor_without_a_reason(people: dict[str, User]) -> None:
    review = opened("paying")
    assert review.risk == Risk.HIGH
    with pytest.raises(decisions.NotYours, match="started this run"):
        decide(review, "approve", by="operator", reason="It is owed.")
    with pytest.raises(commands.Refused, match="say why"):
        decide(review, "approve")
    usual = opened("guessing")
    decide(usual, "approve", by="operator")


def test_a_review_is_for_its_group_then_for_the_second_its_assignee_and_admins(people: dict[str, User]) -> None:
    first, second = (Group.objects.create(name=name) for name in ("Cards", "Fraud"))
    people["reviewer2"].groups.add(second)
    review = opened("guessing")
    Review.objects.filter(pk=review.pk).update(group=first, second_group=second)
    for name in ("reviewer", "reviewer2"):
        with pytest.raises(decisions.NotYours, match="for the group Cards"):
            decide(review, "reject", by=name, reason="No.")
    for more in ({"escalated_at": review.opened_at}, {"assignee": people["reviewer2"], "escalated_at": None}):
        Review.objects.filter(pk=review.pk).update(**more)
        decide(review, "approve", by="reviewer2", undo_seconds=600)
        decisions.undo(review.pk, actor=people["reviewer2"])
    decide(review, "approve", by="admin")


@pytest.mark.django_db(transaction=True)
def test_of_two_first_approvals_at_once_one_is_the_first() -> None:
    cast.people()
    for _ in range(6):
        review = for_two()
        results = at_once(
            *(lambda name=name, review=review: decide(review, "approve", by=name) for name in ("reviewer", "reviewer2"))
        )
        assert sorted(type(one).__name__ for one in results) == ["Decision", "Stale"], results
        assert Review.objects.get(pk=review.pk).is_open
        assert review.decisions.filter(final=False, revoked_at=None).count() == 1


# --- what the same person sends twice ---------------------------------------------------------------------------------


def test_the_same_once_more_answers_as_the_first_did(people: dict[str, User]) -> None:
    for kind, more in (("approve", {}), ("edit", {"value": GOOD}), ("reject", {"reason": "No."})):
        review = opened("guessing")
        first = decide(review, kind, **more)
        again = decide(review, kind, **more)
        assert (again.pk, again.is_repeated, first.is_repeated) == (first.pk, True, False)
        assert len(decided_events(review)) == 1
        with pytest.raises(decisions.Conflict):
            decide(review, kind, by="reviewer2", **more)
    edited = opened("guessing")
    decide(edited, "edit", value=GOOD)
    for other in (GOOD | {"amount": 1}, None):
        with pytest.raises(decisions.Conflict):
            decide(edited, "edit", value=other)


@pytest.mark.django_db(transaction=True)
def test_a_double_click_is_one_decision() -> None:
    cast.people()
    for _ in range(6):
        review = opened("guessing")
        results = at_once(*[lambda review=review: decide(review, "approve")] * 3)
        assert {one.pk for one in results} == {review.decision.pk}, results
        assert [one.is_repeated for one in results].count(False) == 1
        assert len(decided_events(review)) == 1


def test_what_is_put_back_as_it_was_answers_a_second_click_as_the_first(people: dict[str, User]) -> None:
    review = for_two()
    decide(review, "edit", by="reviewer", value=GOOD)
    shown = seen(review)
    back = decide(review, "edit", by="reviewer2", value=review.proposal, seen=shown)
    assert (back.kind, back.value, back.final) == ("approve", None, False)
    assert decide(review, "edit", by="reviewer2", value=review.proposal, seen=shown).pk == back.pk
    with pytest.raises(decisions.Stale):
        decide(review, "edit", by="reviewer2", value=GOOD, seen=shown)


# --- the page -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    found = Client()
    found.force_login(people["reviewer"])
    return found


def post(client: Client, review: Review, kind: str, name: str = "decide_review", **typed: Any) -> Any:
    sent = {"decision": kind, "seen": seen(review)} | {key.replace("__", "."): value for key, value in typed.items()}
    return client.post(reverse(name, args=[review.pk]), sent)


def page(client: Client, review: Review) -> str:
    return client.get(review.get_absolute_url()).content.decode()


def test_the_page_asks_for_the_password_again_and_loses_nothing(client: Client) -> None:
    review = opened("paying")
    session = client.session
    session[SIGNED_IN_AT] = session[SIGNED_IN_AT] - 901
    session.save()
    answer = post(client, review, "approve", reason="It is owed to them.")
    assert answer.status_code == 302
    assert answer.url.startswith(reverse("account_reauthenticate"))
    assert not Decision.objects.exists()
    html = client.get(answer.url).content.decode()
    assert "Confirm it is you" in html
    wrong = client.post(answer.url, {"password": "wrong"})
    assert wrong.status_code == 200
    right = client.post(answer.url, {"password": PASSWORD})
    assert right.url == review.get_absolute_url()  # type: ignore[attr-defined]
    assert "It is owed to them." in page(client, review)
    assert post(client, review, "approve", reason="It is owed to them.").url != answer.url
    assert review.decision is not None


def test_an_edit_of_high_risk_is_shown_as_changes_before_it_is_sent(client: Client) -> None:
    review = opened("paying")
    assert "Check changes" in page(client, review)
    silent = post(client, review, "edit", value__amount="7", value__ledger="")
    assert (silent.status_code, "Say why: the risk is high." in silent.content.decode()) == (422, True)
    shown = post(client, review, "edit", value__amount="7", value__ledger="", reason="It is less.")
    html = shown.content.decode()
    assert (shown.status_code, Decision.objects.count()) == (200, 0)
    assert "<del>3</del>" in html
    assert "<ins>7" in html
    assert 'Approve as edited: Pay, amount <bdi class="given">7</bdi>' in html
    checked = next(
        one
        for one in choices.choices(review, chosen="edit", data={"value.amount": "7", "value.ledger": ""})
        if one.kind == "edit"
    )
    assert not checked.is_checked(review, "")
    said = {"value__ledger": "", "reason": "It is less.", "checked": checked.checked}
    other = post(client, review, "edit", value__amount="8", **said)
    assert (other.status_code, Decision.objects.count()) == (200, 0), "what was checked is not what is sent"
    assert post(client, review, "edit", value__amount="7", **said).status_code == 302
    assert Decision.objects.get().reason == "It is less."
    assert finished(review).output == {"said": "paid 7.0"}


def test_the_page_says_who_approved_and_to_whom_the_second_belongs(client: Client, people: dict[str, User]) -> None:
    review = for_two()
    assert "Two different people must approve this." in page(client, review)
    answer = client.post(
        reverse("decide_review", args=[review.pk]),
        {"decision": "edit", "seen": review.fingerprint, "value.colour": "green", "value.amount": "12.5"},
        follow=True,
    )
    assert "1 of 2 approvals. Somebody else must approve it too." in answer.content.decode()
    first = decisions.pending(review)
    assert first is not None
    mine = page(client, review)
    assert "You have approved it. Somebody else must approve it too." in mine
    assert "Take your approval back" in mine
    second = Client()
    second.force_login(people["reviewer2"])
    news = f"{reverse('review_news', args=[review.pk])}?first="
    told = second.get(news).content.decode()  # to whom the page is open since before
    assert "reviewer gave the first of two approvals, as “Edited and approved”" in told
    assert "data-closed" not in told
    assert second.get(f"{news}{first.pk}").content.decode().strip() == ""
    theirs = page(second, review)
    assert "1 of 2 approvals" in theirs
    assert "<ins>green</ins>" in theirs
    assert post(second, review, "approve").status_code == 302
    assert finished(review).output == {"said": "green 12.5"}
    assert "reviewer had edited and approved it before" in page(second, review)


@pytest.mark.parametrize(
    ("kind", "typed", "button", "told"),
    [
        ("edit", {"text": "a pen", "number": 9}, "Approve: Give a pen to 9", "with the input below, as reviewer edited it"),
        ("take_over", "by hand", "Approve: “Taken over” by reviewer", "with the result that reviewer gave"),
        ("skip", None, "Approve: “Skipped” by reviewer", "“Give” is left out, as reviewer wants it"),
    ],
)
def test_the_second_is_told_what_the_second_lets_happen(
    people: dict[str, User], kind: str, typed: Any, button: str, told: str
) -> None:
    review, second = asked("a cup"), Client()
    Review.objects.filter(pk=review.pk).update(approvals=2)
    review.refresh_from_db()
    second.force_login(people["reviewer2"])
    assert "with the input below. Nothing has been done yet." in page(second, review)
    decide(review, kind, value=typed)
    html = page(second, review)
    shown = " ".join(strip_tags(html).split())
    assert (button in shown, told in shown) == (True, True)
    assert ("with the input below. Nothing" in shown, "Proposed input" in shown) == (False, kind != "edit")
    if kind == "edit":
        row, headline = (html.partition(place)[2].partition(end)[0] for place, end in ((ROW, "</li>"), (HEADLINE, "</p>")))
        assert (strip_tags(row).strip().startswith("Give a pen to 9"), "a cup to 3" in row) == (True, False)
        assert strip_tags(headline).strip() == "Give a pen to 9"


ROW, HEADLINE = 'class="act one-line">', '<p class="m-0 fs-3">'


def test_who_may_not_is_told_who_may(client: Client) -> None:
    review = opened("guessing")
    Review.objects.filter(pk=review.pk).update(group=Group.objects.create(name="Cards"))
    assert "This review is for the group Cards." in page(client, review)
    refused = post(client, review, "approve")
    assert refused.status_code == 403
    assert "for the group Cards" in refused.content.decode()


def test_undo_on_the_page(client: Client, people: dict[str, User], settings: Any) -> None:
    settings.UNDO_SECONDS = 600
    review = opened("guessing")
    after = client.post(
        reverse("decide_review", args=[review.pk]), {"decision": "approve", "seen": review.fingerprint}, follow=True
    )
    assert reverse("undo_review", args=[review.pk]) in after.content.decode()
    other = Client()
    other.force_login(people["reviewer2"])
    assert post(other, review, "", "undo_review").status_code == 403
    later = opened("guessing")
    assert post(client, later, "approve").status_code == 302
    assert f'id="undo-{review.pk}"' in page(client, review), "the last is another one"
    assert f'id="undo-{later.pk}"' not in page(client, later), "it stands above the page already"
    assert "undo-" not in page(other, review)
    admin = Client()
    admin.force_login(people["admin"])
    assert f'id="undo-{review.pk}"' in page(admin, review)
    back = client.post(reverse("undo_review", args=[review.pk]), follow=True)
    assert f"Taken back: review {review.pk} is open again." in back.content.decode()
    assert Review.objects.get(pk=review.pk).is_open
    late = post(client, review, "", "undo_review")
    assert (late.status_code, "no decision" in late.content.decode()) == (409, True)
    assert client.get(reverse("undo_review", args=[review.pk])).status_code == 302


def test_every_kind_of_event_was_recorded_in_order(people: dict[str, User]) -> None:
    review = opened("guessing")
    decide(review, "approve", undo_seconds=600)
    decisions.undo(review.pk, actor=people["reviewer"])
    facts = event_log.facts(review.run_id)
    assert [fact.kind for fact in facts][-2:] == [Kind.STEP_DECIDED, Kind.DECISION_REVOKED]
    assert describe.sentence(facts[-1], {1: "Guess"}) == (
        "reviewer took back the decision about step 1 (Guess): it waits for a person again."
    )


@pytest.mark.django_db(transaction=True)
def test_who_becomes_allowed_at_that_very_moment_still_gives_the_password_first() -> None:
    people = cast.people()
    review, client = opened("paying"), Client()
    client.force_login(people["reviewer"])
    Review.objects.filter(pk=review.pk).update(group=Group.objects.create(name="Others"))

    def approve() -> Any:
        try:
            return post(client, review, "approve", reason="It is owed to them.")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Review.objects.select_for_update().get(pk=review.pk)
            answer = pool.submit(approve)
            eventually(waits_for_a_lock)
            Review.objects.filter(pk=review.pk).update(group=None)
        assert answer.result(timeout=30).status_code == 403
    assert not Decision.objects.exists()


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction is told the same each time
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        return bool(cursor.fetchone()[0])
