"""`make run`: everything comes up on the wished port, what dies comes back, and no end of it leaves a process behind."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from rq import Worker

from agentops.children import TOO_MANY_DEATHS, Child
from agentops.services import process
from agentops.services.valkey import valkey
from tests.checkout import PROJECT, local, manage, pids, plain_environment

__all__ = ["local"]  # the fixture

LONGEST_START_SECONDS = 180  # with a training of the classifier on two busy cores


# Servers that are not needed, because the command ends before it would ask them; port 1 has none.
ELSEWHERE = {"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere", "REDIS_URL": "redis://127.0.0.1:1/0"}


class Up:
    """`manage.py up`, read line by line."""

    def __init__(self, local: Path) -> None:
        self.port = free_port()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-u", "manage.py", "up"],
            cwd=PROJECT,
            env=plain_environment(local, PORT=str(self.port)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.watchdog = threading.Timer(LONGEST_START_SECONDS, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def wait_for(self, text: str) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said, but: {''.join(self.lines)}")

    def status_of(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        return connection.getresponse().status

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        self.watchdog.cancel()
        return self.process.returncode


@pytest.fixture
def up(local: Path) -> Iterator[Up]:
    running = Up(local)
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)
    assert process.wait_until(lambda: not processes_of(local), 20), processes_of(local)


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def processes_of(local: Path) -> dict[int, str]:
    """All that was started for this checkout's data, but PostgreSQL and Redis."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            ours = f"AGENTOPS_LOCAL={local}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        command = process.command_line(int(entry.name))
        if ours and not re.search(r"/postgres |valkey-server|redis-server", command) and not command.startswith("postgres:"):
            found[int(entry.name)] = command
    return found


def job_processes(local: Path) -> list[int]:
    """Without what they fork for each job, which has the same command line but is not first in its session."""
    ours = [pid for pid, command in processes_of(local).items() if "manage.py rqworker" in command]
    return sorted(pid for pid in ours if os.getsid(pid) == pid)


def registered_job_processes(local: Path) -> int:
    return len(Worker.all(connection=redis.from_url(valkey(local).url)))


def test_everything_comes_up_heals_and_goes(local: Path, up: Up) -> None:
    up.wait_for(f"agentops is at http://127.0.0.1:{up.port}/")
    assert up.status_of("/healthz") == 200
    assert up.status_of("/accounts/login/") == 200
    up.wait_for("Everything runs")
    accounts = (local / "accounts.txt").read_text().strip()
    assert accounts in "".join(up.lines)
    outside = next(line for line in up.lines if "fails on demand" in line).split(" is at ")[1].split()[0]
    assert urllib.request.urlopen(f"{outside}/seen", timeout=30).status == 200
    assert (local / "outside.txt").read_text() == outside, "where `traffic` looks for it"

    assert process.wait_until(lambda: registered_job_processes(local) == 2, 60)
    killed = job_processes(local)[0]
    given = (Path("/proc") / str(killed) / "environ").read_bytes().split(b"\0")
    assert f"PUBLIC_URL=http://127.0.0.1:{up.port}".encode() in given, "links in messages lead to this site"
    os.kill(killed, signal.SIGKILL)
    assert "exit code -9" in up.wait_for("was started again")
    assert len(job_processes(local)) == 2

    assert up.end(signal.SIGINT) == 0
    assert processes_of(local) == {}
    assert not (local / "outside.txt").exists()
    assert pids(local) == [None, None], "PostgreSQL and Redis go last"

    again = Up(local)
    again.wait_for("Everything runs")
    assert accounts in "".join(again.lines), "the data of the first time is there"
    assert again.end(signal.SIGTERM) == 0
    assert processes_of(local) == {}

    last = Up(local)
    last.wait_for("agentops is at")
    last.end(signal.SIGKILL)
    assert process.wait_until(lambda: not processes_of(local), 20), processes_of(local)
    assert all(pids(local)), "the servers wait for the next run"


def test_a_taken_port_is_said_with_the_way_out(local: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = manage(local, "manage.py", "up", PORT=port, **ELSEWHERE)
    assert said.returncode == 1
    assert f"Port {port} is in use by another program" in said.stderr
    assert "PORT=9000 make run" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_database_that_does_not_answer_is_said(local: Path) -> None:
    said = manage(local, "manage.py", "up", PORT=str(free_port()), **ELSEWHERE)
    assert said.returncode == 1
    assert "The database does not answer" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("wish", ["web", "0", "70000", "-1"])
def test_a_port_that_is_none_is_said(local: Path, wish: str) -> None:
    said = manage(local, "manage.py", "up", PORT=wish, **ELSEWHERE)
    assert said.returncode == 1
    assert f"PORT is '{wish}': it must be a number from 1 to 65535" in said.stderr


def test_a_child_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    child = Child("brief", ["-c", "raise SystemExit('no such luck')"], tmp_path)
    child.start()
    revived = []
    while not revived or revived[-1]:
        assert process.wait_until(lambda: child.exit_code() is not None, 30)
        revived.append(child.start_again())
    assert len(revived) == TOO_MANY_DEATHS
    assert "no such luck" in process.tail(child.log)
    child.rest(60)
    assert child.rests()
    child.rest(0)
    assert not child.rests()
    assert child.start_again(), "rested, it may try again as often"
    child.stop(30)


def test_stopping_a_child_ends_what_it_forked_even_if_both_are_stubborn(tmp_path: Path) -> None:
    stubborn = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "forked = os.fork()\n"
        "os.setpgid(0, 0) if not forked else print(forked, flush=True)\n"
        "time.sleep(600)\n"
    )
    child = Child("stubborn", ["-c", stubborn], tmp_path)
    child.start()
    assert process.wait_until(lambda: child.log.read_text().strip().isdigit(), 30)
    child.stop(0.2)
    assert child.exit_code() == -signal.SIGKILL
    forked = int(child.log.read_text())
    assert process.wait_until(lambda: process.command_line(forked) == "", 10)
