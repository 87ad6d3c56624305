"""`manage.py seed`: a sample world once, and never a new password for an account that somebody uses."""

import re
import stat
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings

from agentops import people
from runs import commands
from runs.models import Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("demo_bank")]


@pytest.fixture(autouse=True)
def accounts(settings: Settings, tmp_path: Path) -> Path:
    """The file of a checkout that has not made any account yet."""
    settings.AGENTOPS_LOCAL = tmp_path
    return tmp_path / "accounts.txt"


def seed(*arguments: str) -> str:
    out = StringIO()
    call_command("seed", *(arguments or ("--runs", "0")), stdout=out)
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
    assert "Started 2 runs" in seed("--if-empty", "--runs", "2")
    assert "Started" not in seed("--if-empty", "--runs", "2")
    assert Run.objects.count() == 2
    assert "Started 200 runs" in seed("--runs", "9999"), "it says how many there were"


def test_a_disabled_desk_is_said(people: dict[str, User]) -> None:
    commands.configure("card-desk", by="admin", enabled=False)
    with pytest.raises(CommandError, match=r"No sample runs were started\. The agent Card desk is disabled"):
        seed("--runs", "1")


@pytest.mark.parametrize("runs", ["-1", "many"])
def test_a_number_of_runs_that_is_none_is_said(runs: str) -> None:
    with pytest.raises(CommandError, match=f"argument --runs: '{runs}' is not a whole number from 0"):
        seed(f"--runs={runs}")


def test_it_is_not_for_production(settings: Settings) -> None:
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="not for production"):
        seed()
    assert not User.objects.exists()
