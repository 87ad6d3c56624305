"""`manage.py seed`: a sample world once, and never a new password for an account that somebody uses."""

import re
import stat
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from agentops import people
from agentops.seeding.story import Story
from reviews import decisions
from reviews.models import Decision, Review
from runs import commands, event_log
from runs.engine.events import first_broken
from runs.models import Budget, Run, Step
from runs.projections import RUN_COLUMNS, STEP_COLUMNS

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("demo_bank")]


@pytest.fixture(autouse=True)
def accounts(settings: Settings, tmp_path: Path) -> Path:
    """The file of a checkout that has not made any account yet."""
    settings.AGENTOPS_LOCAL = tmp_path
    return tmp_path / "accounts.txt"


def seed(*arguments: str) -> str:
    out = StringIO()
    call_command("seed", *(arguments or ("--start", "0")), stdout=out)
    return out.getvalue()


def password_in(file: Path) -> str:
    found = re.fullmatch(r"Sign in as ([\w, ]+); the password of each is: (\S+)\n", file.read_text())
    assert found is not None
    return found[2]


def who_has(password: str) -> set[str]:
    return {user.username for user in User.objects.all() if user.check_password(password)}


def test_five_accounts_and_their_password_in_a_private_file(accounts: Path) -> None:
    seed()
    assert who_has(password_in(accounts)) == set(people.CAST)
    assert stat.S_IMODE(accounts.stat().st_mode) == 0o600
    assert User.objects.get(username="operator").groups.get().name == "Operator"


def test_the_second_time_changes_nothing_and_says_nothing_of_accounts(accounts: Path) -> None:
    seed()
    password = password_in(accounts)
    assert "accounts" not in seed()
    assert password_in(accounts) == password
    assert who_has(password) == set(people.CAST)


def test_another_checkout_on_the_same_database_leaves_the_passwords_alone(accounts: Path) -> None:
    seed()
    password = password_in(accounts)
    accounts.unlink()
    said = seed()
    assert who_has(password) == set(people.CAST)
    assert not accounts.exists()
    assert said.startswith("The accounts operator, reviewer, reviewer2, admin, outsider exist already and keep their password;")
    assert "manage.py changepassword operator" in said


def test_only_the_account_that_it_makes_gets_a_password(accounts: Path) -> None:
    seed()
    password = password_in(accounts)
    accounts.unlink()
    User.objects.get(username="reviewer2").delete()
    said = seed()
    assert who_has(password) == set(people.CAST) - {"reviewer2"}
    assert who_has(password_in(accounts)) == {"reviewer2"}
    assert "The accounts operator, reviewer, admin, outsider exist already" in said


def test_a_new_database_gets_the_password_that_the_checkout_knows(accounts: Path) -> None:
    seed()
    password = password_in(accounts)
    User.objects.all().delete()
    seed()
    assert who_has(password) == set(people.CAST)


def test_runs_are_started_once() -> None:
    assert "Started 2 runs" in seed("--if-empty", "--start", "2")
    assert "Started" not in seed("--if-empty", "--start", "2")
    assert Run.objects.count() == 2
    assert "Started 200 runs" in seed("--start", "9999"), "it says how many there were"


def test_history_is_whole_and_tells_the_same_stories_for_the_same_seed() -> None:
    said = [seed("--runs", "150", "--seed", "8", "--days", "3") for _ in range(2)]
    assert said[0].endswith("Added 150 runs of the last 3 days.\n")
    runs = list(Run.objects.order_by("pk"))
    first, again = runs[:150], runs[150:]
    assert [(run.input_text, run.tags) for run in first] == [(run.input_text, run.tags) for run in again]
    assert [run.created_at for run in first] == sorted(run.created_at for run in first)
    assert {run.status for run in runs} >= {"succeeded", "failed", "waiting"}
    assert {(run.agent, run.agent_version) for run in runs} >= {
        ("card-desk", "1"),
        ("invoice-check", "1"),
        ("invoice-check", "2"),
    }
    assert Budget.objects.filter(unit="money", used__gt=0).exists()
    before = rows(first)
    for run in first:
        assert first_broken(run.pk, event_log.facts(run.pk)) == ""
        assert max(event.at for event in event_log.rows(run.pk)) <= timezone.now()
        event_log.reproject(run.pk)
    assert rows(first) == before


def test_runs_of_equal_messages_have_tags_of_their_own() -> None:
    def tagged(seed: int) -> list[str]:
        story = Story(Random(seed), timezone.now(), timezone.now())
        story.requested({"summary": "Where is my card?"}, by="operator")
        return list(story.told[0].draft.data.get("tags", []))

    found = [tagged(seed) for seed in range(20)]
    assert [] in found, "or none"
    assert len({tuple(tags) for tags in found}) > 2
    assert found == [tagged(seed) for seed in range(20)]


def test_who_is_asked_in_history_has_a_review_that_can_be_decided(people: dict[str, User]) -> None:
    seed("--runs", "100", "--days", "1")
    waiting = Run.objects.filter(status="waiting")
    assert set(Review.objects.open().values_list("run", flat=True)) == set(waiting.values_list("pk", flat=True)) != set()
    assert Review.objects.filter(state="decided").count() == Decision.objects.count() > 0
    review = Review.objects.open().first()
    assert review
    decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint)
    assert Run.objects.get(pk=review.run_id).status == "queued"


def rows(runs: list[Run]) -> list[Any]:
    ids = [run.pk for run in runs]
    steps = Step.objects.filter(run__in=ids).order_by("run", "position").values_list(*STEP_COLUMNS)
    return [*Run.objects.filter(pk__in=ids).order_by("pk").values_list(*RUN_COLUMNS), *steps]


def test_a_disabled_desk_is_said(people: dict[str, User]) -> None:
    commands.configure("card-desk", by="admin", enabled=False)
    with pytest.raises(CommandError, match=r"No sample runs were started\. The agent Card desk is disabled"):
        seed("--start", "1")


@pytest.mark.parametrize("runs", ["-1", "many"])
def test_a_number_of_runs_that_is_none_is_said(runs: str) -> None:
    with pytest.raises(CommandError, match=f"argument --runs: '{runs}' is not a whole number from 0"):
        seed(f"--runs={runs}")


def test_it_is_not_for_production(settings: Settings) -> None:
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="not for production"):
        seed()
    assert not User.objects.exists()
