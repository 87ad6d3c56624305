"""The form in which an admin writes a policy, and what it says beforehand of the steps that are recorded."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from reviews import decisions
from reviews.models import Review
from runs import policies, previews
from runs.models import Policy
from tests.test_policies import ANSWERS, CALLED, LARGE, asked, decide, estimate, policy, quote, started

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    CALLED.clear()
    ANSWERS.clear()


ADD = "/admin/runs/policy/add/"
FORM = {"agent": "quoting", "worker": quote.name, "enabled": "on", "when": "condition", "subject": "output", "path": "cents"}
FORM |= {"operator": ">", "value": "100", "sample_share": "0", "approvals": "1", "default": "expire"}


@pytest.fixture
def admin(people: dict[str, User]) -> Client:
    client = Client()
    client.force_login(people["admin"])
    return client


def test_a_preview_says_what_it_would_have_done_and_saves_nothing(admin: Client) -> None:
    runs = [started(number=number) for number in (50, 150, 250)]
    policy(None, sample_share=1.0)
    wrong = started(number=60)
    review = asked(wrong)
    decisions.decide(review.pk, actor=User.objects.get(username="reviewer"), kind="reject", seen=review.fingerprint, reason="no")
    page = admin.post(ADD, FORM | {"_preview": "Preview"})
    assert page.context["preview"].sentence == (
        "It would have sent 2 of the last 4 steps to a person; 1 of those that pass was later corrected."
    )
    assert f'<a href="/runs/{runs[2].pk}/#step-1">Run {runs[2].pk}, step 1</a>' in page.text
    assert f'<a href="/runs/{wrong.pk}/#step-1">' in page.text
    assert "This policy: cents &gt; 100. It is 250." in page.text
    assert 'value="100"' in page.text, "what was typed is still there"
    assert Policy.objects.count() == 1


def test_a_preview_judges_as_the_engine_does(admin: Client) -> None:
    """What it says of recorded steps is what then happens to the same steps."""
    ANSWERS["confidence"] = 0.9
    numbers = (1, 99, 100, 101, 5000)
    policy(estimate, when="never")
    for number in numbers:
        started("estimate", number)
    row = policies.configure(Policy.objects.get().pk, by="admin", **LARGE, threshold=0.5)
    expected = previews.preview(row)
    happened = [started("estimate", number).status for number in numbers]
    assert (expected.steps, len(expected.sent)) == (5, happened.count("waiting"))
    assert sorted(one.why for one in expected.sent) == sorted(
        review.why.removesuffix(" it looked so") for review in Review.objects.open()
    )


def test_a_preview_counts_what_waits_or_was_refused_before_it_was_executed() -> None:
    row = policy(**LARGE, subject="input")
    waits, refused = started(number=200), started(number=300)
    review = asked(refused)
    decisions.decide(review.pk, actor=User.objects.get(username="reviewer"), kind="reject", seen=review.fingerprint, reason="no")
    assert previews.preview(row).sentence == (
        "It would have sent 2 of the last 2 steps to a person; none of those that pass was later corrected."
    )
    row.value = 1000
    assert previews.preview(row).sentence == (
        "No such step is recorded yet, so there is nothing to try it on. 2 more have no result by which to judge, "
        "because nobody has approved it yet, it was refused, or it failed."
    )
    row.when = "never"
    found = previews.preview(row)
    assert ([one.step.run_id for one in found.corrected], found.steps, found.unknown) == ([refused.pk], 2, 0)
    row.when, row.subject, row.value = "condition", "output", 100
    decide(waits, "approve")
    assert previews.preview(row).sentence.startswith("It would have sent 1 of the last 1 steps to a person; none of those")


def test_an_admin_makes_a_policy_and_changes_it_and_what_does_not_fit_stands_at_its_field(admin: Client) -> None:
    assert admin.post(ADD, FORM | {"path": "euros"}).context["adminform"].form.errors["path"]
    wrong = {"operator": "", "threshold": "2", "default": "approve", "risk": "high", "sample_share": "many"}
    errors = admin.post(ADD, FORM | wrong).context["adminform"].form.errors
    assert errors.keys() == {"operator", "threshold", "within_seconds", "default", "sample_share"}, "all of it in one round"
    other = admin.post(ADD, FORM | {"worker": "agents.count"}).context["adminform"].form.errors
    assert other["worker"] == ["Quoting does not name this worker. Choose one of its own."]
    assert admin.post(ADD, FORM).status_code == 302
    row = Policy.objects.get()
    url = f"/admin/runs/policy/{row.pk}/change/"
    assert (row.version, row.changed_by, row.value) == (1, "admin", 100)
    assert "Nothing was changed: version 1" in admin.post(url, FORM, follow=True).text
    assert admin.post(url, FORM | {"value": "250"}).status_code == 302
    page = admin.get(url).text
    assert "value: 100 → 250" in page
    assert 'name="_preview"' in page
    assert Policy.objects.get().version == 2


def test_only_who_may_change_policies_may_preview_or_make_one(people: dict[str, User]) -> None:
    for name in ("operator", "reviewer", "outsider"):
        client = Client()
        client.force_login(people[name])
        assert client.post(ADD, FORM | {"_preview": "Preview"}).status_code == 302
        assert client.post(ADD, FORM)["Location"].startswith("/admin/login/")
    assert not Policy.objects.exists()
