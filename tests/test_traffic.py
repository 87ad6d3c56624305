"""`manage.py traffic`: runs on real messages, decisions of the sample people, and faults outside."""

from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from agentops.management.commands import traffic
from agentops.outside import Outside
from reviews.models import Decision, Review
from runs import commands, executor
from runs.models import Run

pytestmark = pytest.mark.django_db


def test_it_starts_runs_decides_and_has_the_outside_fail(
    people: dict[str, User], outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "FAULT_EVERY_SECONDS", 0.01)
    executor.advance(commands.start("paying", {"text": "hello"}, by="operator").pk, owner="test")
    Review.objects.update(opened_at=timezone.now() - timedelta(minutes=1))
    out = StringIO()
    call_command("traffic", rate=50, decide=1000, seconds=1.0, outside=outside.url, stdout=out)
    assert Run.objects.filter(agent="card-desk", input__message__isnull=False).exists()
    assert Decision.objects.get().actor.username in ("reviewer", "reviewer2", "operator")
    assert "1 reviews decided" in out.getvalue()
    assert ", 0 faults" not in out.getvalue()


def test_it_finds_the_outside_where_up_has_put_it(
    people: dict[str, User], outside: Outside, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "FAULT_EVERY_SECONDS", 0.01)
    settings.AGENTOPS_LOCAL, settings.CARD_PROCESSOR_URL = tmp_path, "http://127.0.0.1:9"
    (tmp_path / "outside.txt").write_text(outside.url)
    out, err = StringIO(), StringIO()
    call_command("traffic", rate=50, seconds=0.5, stdout=out, stderr=err)
    assert ", 0 faults" not in out.getvalue()
    assert err.getvalue() == ""


def test_an_outside_that_is_not_there_is_said_and_stops_nothing(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "FAULT_EVERY_SECONDS", 0.01)
    err = StringIO()
    call_command("traffic", rate=50, seconds=0.3, outside="http://127.0.0.1:9", stdout=StringIO(), stderr=err)
    assert "No fault was planned at http://127.0.0.1:9" in err.getvalue()
    assert Run.objects.exists()


def test_where_it_cannot_work_it_says_why(people: dict[str, User], settings: Settings) -> None:
    commands.configure("card-desk", by="admin", enabled=False)
    with pytest.raises(CommandError, match=r"No run was started. The agent Card desk is disabled"):
        call_command("traffic", seconds=0.1)
    with pytest.raises(CommandError, match=r"'-1' is no|number from 0"):
        call_command("traffic", "--rate=-1")
    User.objects.all().delete()
    with pytest.raises(CommandError, match=r"run `manage.py seed` first"):
        call_command("traffic")
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="not for production"):
        call_command("traffic")
