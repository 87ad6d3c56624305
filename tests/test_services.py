"""A checkout's own PostgreSQL and Redis: shared while used, stopped after, and back with their data after any death."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from agentops.services import places, process
from agentops.services.postgres import postgres
from tests.checkout import PROJECT, local, manage, own_directory, pids, plain_environment

__all__ = ["local"]  # the fixture

USER = """
import json, os, sys
from agentops.services import ensure_env
ensure_env()
print(json.dumps({name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")}), flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the servers of a checkout until it is told to end."""

    def __init__(self, local: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER],
            cwd=PROJECT,
            env=plain_environment(local, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def uses(self) -> dict[str, str]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture
def another_local() -> Iterator[Path]:
    yield from own_directory()


def remember(uses: dict[str, str], word: str) -> None:
    with psycopg.connect(uses["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS word (word text)")
        connection.execute("INSERT INTO word VALUES (%s)", [word])
    redis.from_url(uses["REDIS_URL"]).set("word", word)


def remembered(uses: dict[str, str]) -> tuple[list[str], bytes]:
    with psycopg.connect(uses["DATABASE_URL"]) as connection:
        words = [word for (word,) in connection.execute("SELECT word FROM word")]
    return words, redis.from_url(uses["REDIS_URL"]).get("word")


def test_the_last_user_stops_the_servers_and_the_next_finds_its_data(local: Path) -> None:
    first, second = User(local), User(local)
    assert first.uses() == second.uses()
    first.end()
    uses = User(local)
    remember(uses.uses(), "kept")
    uses.end()
    assert all(pids(local)), "the second user is still there"
    second.end()
    assert pids(local) == [None, None]

    third = User(local)
    assert remembered(third.uses()) == (["kept"], b"kept")
    third.end()


def test_eight_users_at_once_share_one_pair_of_servers(local: Path) -> None:
    users = [User(local) for _ in range(8)]
    assert len({json.dumps(user.uses()) for user in users}) == 1
    log = (postgres(local).log).read_text()
    assert log.count("database system is ready to accept connections") == 1
    for user in users:
        user.end()
    assert pids(local) == [None, None]


def test_servers_of_a_killed_user_are_adopted_and_stopped_by_the_next(local: Path) -> None:
    killed = User(local)
    killed.uses()
    killed.kill()
    before = pids(local)
    assert all(before)
    next_user = User(local)
    next_user.uses()
    assert pids(local) == before
    next_user.end()
    assert pids(local) == [None, None]


def test_servers_ended_by_kill_9_start_again_with_their_data(local: Path) -> None:
    user = User(local)
    remember(user.uses(), "survives")
    for pid in pids(local):
        assert pid
        os.kill(pid, signal.SIGKILL)
    next_user = User(local)
    assert remembered(next_user.uses()) == (["survives"], b"survives")
    next_user.end()
    user.end()


def test_a_lock_that_names_a_living_stranger_does_not_stop_postgresql(local: Path) -> None:
    server = postgres(local)
    server.start()
    left_behind = (server.data / "postmaster.pid").read_text().split("\n", 1)[1]
    server.stop()
    stranger = os.getpid()
    (server.data / "postmaster.pid").write_text(f"{stranger}\n{left_behind}")
    (server.sockets / ".s.PGSQL.5432.lock").write_text(f"{stranger}\n{left_behind}")
    server.start()
    assert server.answers()


def test_two_checkouts_do_not_disturb_each_other(local: Path, another_local: Path) -> None:
    one, other = User(local), User(another_local)
    uses, others_use = one.uses(), other.uses()
    remember(uses, "one")
    remember(others_use, "other")
    one.end()
    assert remembered(others_use) == (["other"], b"other")
    assert uses["SECRET_KEY"] != others_use["SECRET_KEY"]
    other.end()


def test_a_path_too_long_for_sockets_gets_them_elsewhere(local: Path) -> None:
    deep = local / ("d" * 60) / ("e" * 60)
    user = User(deep)
    assert str(deep) not in user.uses()["DATABASE_URL"]
    user.end()
    assert (deep / "redis").is_dir()
    shutil.rmtree(places.socket_directory(deep, None))


def test_termination_stops_the_servers_too(local: Path) -> None:
    user = User(local)
    user.uses()
    user.process.terminate()
    user.process.communicate(timeout=60)
    assert pids(local) == [None, None]


def test_servers_named_in_the_environment_are_used_and_none_started(local: Path) -> None:
    named = {"DATABASE_URL": "postgresql://db.example/agentops", "REDIS_URL": "redis://redis.example/0"}
    user = User(local, **named)
    assert named.items() <= user.uses().items()
    user.end()
    assert not list(local.glob("pg*"))
    assert not (local / "redis").exists()


def test_production_never_runs_on_servers_of_the_checkout(local: Path) -> None:
    said = manage(local, "manage.py", "check", AGENTOPS_ENV="production", SECRET_KEY="x" * 60)
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        "agentops: AGENTOPS_ENV is production, and DATABASE_URL and REDIS_URL not set: name your servers there."
    ]
    assert not list(local.iterdir())


def test_production_refuses_the_servers_of_the_checkout_when_named(local: Path) -> None:
    secret = "".join(chr(97 + number % 26) for number in range(60))
    named = {"AGENTOPS_ENV": "production", "SECRET_KEY": secret, "ALLOWED_HOSTS": "agentops.example"}
    named |= {"BANK_DATABASE_URL": "postgresql://bank.example/bank"}
    user = User(local)
    uses = user.uses()
    elsewhere = {"DATABASE_URL": "postgresql://db.example/agentops", "REDIS_URL": "redis://redis.example/0"}
    assert manage(local, "manage.py", "check", **named, **elsewhere).returncode == 0
    for name in elsewhere:
        said = manage(local, "manage.py", "check", **named, **{**elsewhere, name: uses[name]})
        assert said.returncode == 1
        assert "names an embedded service: give production its own" in said.stderr
    user.end()


def test_the_secret_key_is_made_once_and_private(local: Path) -> None:
    keys = set()
    for _ in range(2):
        user = User(local)
        keys.add(user.uses()["SECRET_KEY"])
        user.end()
    assert len(keys) == 1
    assert stat.S_IMODE((local / "secret_key").stat().st_mode) == 0o600


def test_missing_programs_are_named_with_what_to_do(local: Path) -> None:
    said = manage(local, "manage.py", "check", AGENTOPS_PG_BINDIR="/nowhere")
    assert said.returncode == 1
    assert "AGENTOPS_PG_BINDIR (/nowhere)" in said.stderr
    assert "or set DATABASE_URL" in said.stderr
    assert "Traceback" not in said.stderr


def test_status_tells_and_stop_waits_for_the_users_to_go(local: Path) -> None:
    user = User(local)
    user.uses()
    assert "PostgreSQL: answers at postgresql://" in manage(local, "-m", "agentops.services", "status").stdout
    refused = manage(local, "-m", "agentops.services", "stop")
    assert refused.returncode == 1
    assert "Redis: in use" in refused.stdout
    user.kill()
    assert manage(local, "-m", "agentops.services", "stop").returncode == 0
    assert manage(local, "-m", "agentops.services", "status").stdout == "PostgreSQL: does not run\nRedis: does not run\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend PostgreSQL another account")
def test_a_checkout_closed_to_postgresqls_account_stays_closed(
    local: Path, another_local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "OUTSIDE_HOME", another_local / "outside")
    (local / "home").mkdir(mode=0o700)
    server = postgres(local / "home" / ".local")
    server.start()
    try:
        assert server.answers()
        assert server.home.is_relative_to(another_local)
        assert stat.S_IMODE((local / "home").stat().st_mode) == 0o700
    finally:
        server.stop()
        shutil.rmtree(server.sockets.parent)


def test_a_process_id_of_a_stranger_is_nobody(local: Path) -> None:
    (local / "server.pid").write_text(f"{os.getpid()}\n")
    assert process.server_in(local / "server.pid", mentioning=Path("/never/mentioned")) is None
    (local / "server.pid").write_text("")
    assert process.server_in(local / "server.pid", mentioning=local) is None
