"""What production refuses, case by case, and that every process refuses it."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_django import Settings

from agentops import checks
from agentops.services import places
from tests.checkout import PROJECT

Wrong = Callable[..., list[str]]
GOOD: dict[str, Any] = {
    "PRODUCTION": True,
    "DEBUG": False,
    "SECRET_KEY": "".join(chr(97 + number % 26) for number in range(60)),
    "ALLOWED_HOSTS": ["agentops.example"],
    "DATABASES": {"default": {"HOST": "database.example", "NAME": "agentops"}},
    "REDIS_URL": "redis://redis.example:6379/0",
    "BANK_DATABASE_URL": "postgresql://desk@bank.example/bank",
}
TEMPORARY = "/tmp/agentops-0-0123456789ab"
RUNTIME = "/run/user/1000/agentops-0123456789ab"
OTHER_CHECKOUT = "/home/ada/Code/agentops/.local/run"


def host(directory: str) -> dict[str, Any]:
    return {"DATABASES": {"default": {"HOST": directory}}}


def option(directory: str) -> dict[str, Any]:
    return {"DATABASES": {"default": {"HOST": "", "OPTIONS": {"host": directory}}}}


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Wrong:
    """Says which errors a good configuration has after some changes. Django warns where DATABASES are overridden in it."""

    def ids(**changes: Any) -> list[str]:
        monkeypatch.setattr(checks, "settings", SimpleNamespace(**GOOD | changes))
        return [str(error.id) for error in checks.production_is_safe(None)]

    return ids


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({}, []),
        ({"SECRET_KEY": "short"}, ["E001"]),
        ({"SECRET_KEY": "django-insecure-" + "q" * 50}, ["E001"]),
        ({"SECRET_KEY": "ChangeMe" + "q" * 50}, ["E001"]),
        ({"ALLOWED_HOSTS": []}, ["E002"]),
        ({"DEBUG": True}, ["E004"]),
        ({"ALLOWED_HOSTS": ["*"]}, ["E005"]),
        ({"ALLOWED_HOSTS": ["agentops.example", "*"]}, ["E005"]),
        ({"BANK_DATABASE_URL": ""}, ["E007"]),
        ({"DEBUG": True, "SECRET_KEY": "short", "BANK_DATABASE_URL": ""}, ["E001", "E004", "E007"]),
    ],
)
def test_what_production_refuses(wrong: Wrong, changes: dict[str, Any], errors: list[str]) -> None:
    assert wrong(**changes) == [f"agentops.{error}" for error in errors]


@pytest.mark.parametrize("directory", [TEMPORARY, RUNTIME, OTHER_CHECKOUT])
def test_sockets_of_a_checkout_are_known_wherever_they_lie(wrong: Wrong, directory: str) -> None:
    assert wrong(**host(f"{directory}/postgres")) == ["agentops.E003"]
    assert wrong(**host(f"{directory}/postgres".replace("/", "%2F"))) == ["agentops.E003"]
    assert wrong(**option(f"{directory}/postgres")) == ["agentops.E003"]
    assert wrong(**option(f"/run/postgresql,{directory}/postgres")) == ["agentops.E003"]
    assert wrong(REDIS_URL=f"unix://{directory}/redis/redis.sock?db=1") == ["agentops.E003"]
    assert wrong(REDIS_URL=f"unix://user:word@{directory}/redis/redis.sock") == ["agentops.E003"]


@pytest.mark.parametrize(
    "changes",
    [
        host("/var/run/postgresql"),
        option("/run/postgresql"),
        host("/srv/agentops/run/postgresql"),
        host("agentops-0123456789ab.example"),
        {"REDIS_URL": "unix:///run/redis/redis.sock"},
        {"REDIS_URL": "redis://agentops-0123456789ab:6379/0"},
        {"REDIS_URL": "rediss://user:word@redis.example/1"},
    ],
)
def test_services_of_ones_own_are_taken(wrong: Wrong, changes: dict[str, Any]) -> None:
    assert wrong(**changes) == []


def test_the_directory_of_this_checkout_is_known_under_any_name(
    wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("AGENTOPS_LOCAL", str(tmp_path / "link"))
    for name in ("link", "elsewhere"):
        assert wrong(**option(f"{tmp_path}/{name}/run/postgres")) == ["agentops.E003"]


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path is short enough for sockets; tmp_path's is not always."""
    with tempfile.TemporaryDirectory(prefix="short-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.parametrize("falls_to", ["XDG_RUNTIME_DIR", "TMPDIR"])
def test_what_the_services_choose_is_what_the_check_knows(
    wrong: Wrong, tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch, falls_to: str
) -> None:
    """The path of this checkout is too long for sockets."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)  # asked again, so that TMPDIR counts
    monkeypatch.setenv(falls_to, str(short))
    chosen = places.socket_directory(tmp_path / ("d" * 60) / ("e" * 60), None)
    assert chosen.parent == short
    assert wrong(**option(f"{chosen}/postgres")) == ["agentops.E003"]


@pytest.mark.parametrize(("lease", "renew", "errors"), [(12, 3, []), (9, 3, []), (8, 3, ["agentops.E006"])])
def test_a_lease_outlives_two_missed_renewals(settings: Settings, lease: int, renew: int, errors: list[str]) -> None:
    settings.LEASE_SECONDS, settings.LEASE_RENEW_SECONDS = lease, renew
    assert [error.id for error in checks.lease_outlives_renewal(None)] == errors


@pytest.mark.parametrize(("name", "value"), [("DAYS", -1), ("HOUR", 24), ("ARCHIVE", "archive")])
def test_retention_that_cannot_be_is_found_at_the_start(settings: Settings, name: str, value: object) -> None:
    setattr(settings, f"PRUNE_{name}", value)
    assert [(error.id, name in error.msg) for error in checks.retention_is_possible(None)] == [("agentops.E014", True)]


def test_outside_production_nothing_is_asked(wrong: Wrong) -> None:
    assert wrong(PRODUCTION=False, SECRET_KEY="", ALLOWED_HOSTS=[], DEBUG=True, BANK_DATABASE_URL="") == []


# --- every process ------------------------------------------------------------------------------------------------


def production(*command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "AGENTOPS_ENV": "production",
        "SECRET_KEY": GOOD["SECRET_KEY"],
        "ALLOWED_HOSTS": "agentops.example",
        "DATABASE_URL": "postgresql://database.invalid/agentops",
        "REDIS_URL": "redis://redis.invalid:6379/0",
        "BANK_DATABASE_URL": "postgresql://bank.invalid/bank",
    }
    command = (sys.executable, *command)
    return subprocess.run(
        command, cwd=PROJECT, env=environment | changes, capture_output=True, text=True, check=False, timeout=60
    )


UNSAFE = [
    ({"SECRET_KEY": "changeme"}, "SECRET_KEY is short or a default: set a random one of 50 letters or more."),
    ({"DEBUG": "1"}, "DEBUG is on: it shows the inside of the program to everybody."),
    (
        {"DATABASE_URL": f"postgresql://agentops@/agentops?host={TEMPORARY}/postgres"},
        "DATABASE_URL or REDIS_URL names an embedded service: give production its own.",
    ),
    (
        {"BANK_DATABASE_URL": ""},
        "BANK_DATABASE_URL is not set: the card desk has no sample bank in production. Name the bank's database.",
    ),
    ({"AGENT_APPS": "nosuch"}, "AGENT_APPS names 'nosuch', but Python finds no such package: it lies beside manage.py."),
]


def test_production_starts_with_what_is_right() -> None:
    ended = production("manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("which", "command"), list(enumerate([("sweeper",), ("rqworker", "default"), ("migrate",)] * 2)))
def test_a_command_refuses_in_one_line(which: int, command: tuple[str, ...]) -> None:
    """Every command, and everything that is unsafe: each of them by a process of its own takes its time."""
    changes, sentence = UNSAFE[which % len(UNSAFE)]
    ended = production("manage.py", *command, **changes)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"agentops: {sentence}\n")


@pytest.mark.parametrize(("changes", "sentence"), [UNSAFE[0], UNSAFE[-1]])
def test_the_web_process_refuses(changes: dict[str, str], sentence: str) -> None:
    ended = production("-m", "uvicorn", "agentops.asgi:application", "--port", "0", **changes)
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert "Uvicorn running" not in ended.stderr


def test_compose_asks_for_what_production_refuses_to_do_without() -> None:
    compose = (PROJECT / "compose.yaml").read_text()
    example = (PROJECT / ".env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", compose))
    assert asked == {
        "SECRET_KEY", "POSTGRES_PASSWORD", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "CARD_PROCESSOR_URL", "BANK_DATABASE_URL",
    }  # fmt: skip
    assert asked == set(re.findall(r"^(\w+)=", example, re.MULTILINE)), "what is asked for, and only that, is to be filled in"


@pytest.mark.parametrize(
    ("networks", "errors"),
    [([], []), (["10.1.0.0/16", "fd00::/8", "10.2.3.4"], []), (["10.1.2.3/16", "intranet"], ["agentops.E010"] * 2)],
)
def test_networks_that_are_none_are_found_at_the_start(networks: list[str], errors: list[str], settings: Settings) -> None:
    settings.ALLOWED_PRIVATE_NETWORKS = networks
    assert [message.id for message in checks.allowed_networks_are_networks(None)] == errors


@pytest.mark.parametrize(("model", "errors"), [("", []), ("some-model", ["agentops.E008"])])
def test_a_model_that_cannot_be_used_is_found_at_the_start(model: str, errors: list[str], settings: Settings) -> None:
    settings.AGENTOPS_MODEL = model
    assert [error.id for error in checks.model_is_usable(None)] == errors
