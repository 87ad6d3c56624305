"""Runs all of agentops on this machine for development: `make run`."""

import os
import signal
import socket  # noqa: TID251 - whether a port is free
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException  # noqa: TID251 - whether our own pages answer
from types import FrameType

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from agentops import outside
from agentops.children import Child
from agentops.services import process
from agentops.services.places import PROJECT

HOST = "127.0.0.1"
# Together below the 15 seconds after which people reach for kill -9. Job processes first: they may finish a step.
SECONDS_FOR_JOBS = 8
SECONDS_FOR_WEB = 4
JOB = "job-"
SECONDS_OF_REST = 20  # a step may end its job process: that stops no other, and the step goes to a person in the end


class Stopped(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM or SIGHUP."""


class Command(BaseCommand):
    help = "Runs web, job processes, sweeper and the stand-in for the outside world until Ctrl-C. PORT=9000 moves it."

    def handle(self, **options: object) -> None:
        if settings.PRODUCTION:
            raise CommandError("`up` is for development. In production run the processes of the Procfile (docs/operations.md).")
        self.port = _port_to_use()
        self.logs = settings.AGENTOPS_LOCAL / "log"
        self.stopping = False
        self.children: list[Child] = []
        for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(wanted, self._stop_soon)
        try:
            self._start_all()
            self._watch()
        except Stopped:
            self._say("")
        finally:
            self._stop_all()

    def _start_all(self) -> None:
        os.environ["CARD_PROCESSOR_URL"] = f"http://{HOST}:{_free_port()}"
        if not settings.CSRF_TRUSTED_ORIGINS:
            os.environ.setdefault("PUBLIC_URL", f"http://{HOST}:{self.port}")  # links in messages lead here
        with self._progress("Bringing the database up to date"):
            _migrate()
        self._start("outside", "manage.py", "outside", "--port", os.environ["CARD_PROCESSOR_URL"].rpartition(":")[2])
        outside.note(os.environ["CARD_PROCESSOR_URL"])
        self._start("web", *_web_server(self.port))
        self._say("Looking after the sample world ...")
        self._carry_out("seed", "--if-empty")
        self._wait_for_page()
        self._tell_where()
        self._carry_out("train")
        os.environ.setdefault("JOB_GRACE_SECONDS", str(SECONDS_FOR_JOBS - 1))
        for number in range(1, settings.JOB_PROCESSES + 1):
            self._start(f"{JOB}{number}", "manage.py", "rqworker", "default")
        self._start("sweeper", "manage.py", "sweeper")
        self._say(f"Everything runs. Logs are in {self.logs}. Ctrl-C stops it and keeps the data.")

    def _tell_where(self) -> None:
        accounts = settings.AGENTOPS_LOCAL / "accounts.txt"
        self._say(self.style.SUCCESS(f"\nagentops is at http://{HOST}:{self.port}/\n"))
        if accounts.exists():
            self._say(f"{accounts.read_text().strip()}\n(kept in {accounts})\n")
        self._say(f"What it calls outside is at {os.environ['CARD_PROCESSOR_URL']} and fails on demand: docs/operations.md.\n")

    def _watch(self) -> None:
        while True:
            self._pause(0.3)
            for child in self.children:
                if child.exit_code() is not None and not child.rests():
                    self._revive(child)

    def _revive(self, child: Child) -> None:
        code = child.exit_code()
        if not child.start_again():
            if child.name.startswith(JOB):
                child.rest(SECONDS_OF_REST)
                return self._say(
                    f"{child.name} died 5 times within a minute; it rests for {SECONDS_OF_REST} s (log: {child.log})"
                )
            raise CommandError(
                f"{child.name} died 5 times within a minute, so everything stops. The end of {child.log} says:\n"
                f"{process.tail(child.log, 20)}"
            )
        return self._say(f"{child.name} ended with exit code {code} and was started again (log: {child.log})")

    def _start(self, name: str, *arguments: str) -> None:
        child = Child(name, arguments, self.logs)
        self.children.append(child)
        child.start()

    def _carry_out(self, *command: str) -> None:
        """A process of its own: what it imports (scikit-learn) must not stay in memory here."""
        running = subprocess.Popen([sys.executable, "manage.py", *command], cwd=PROJECT, start_new_session=True)
        try:
            while running.poll() is None:
                self._pause(0.1)
        finally:
            running.terminate()
            running.wait()
        if running.returncode:
            raise CommandError(f"`manage.py {' '.join(command)}` failed; what it says stands above.")

    def _wait_for_page(self) -> None:
        while not _answers(self.port, "/healthz"):
            self._pause(0.1)
            web = next(child for child in self.children if child.name == "web")
            if web.exit_code() is not None:
                self._revive(web)

    def _stop_all(self) -> None:
        self.stopping = True
        if not self.children:
            return
        outside.forget()
        with self._progress("Stopping"):
            first, last = self._in_order_of_stopping()
            for group, seconds in ((first, SECONDS_FOR_JOBS), (last, SECONDS_FOR_WEB)):
                end = time.monotonic() + seconds
                for child in group:
                    child.ask_to_stop()
                for child in group:
                    child.stop(max(0.0, end - time.monotonic()))

    def _in_order_of_stopping(self) -> tuple[list[Child], list[Child]]:
        last = [child for child in self.children if child.name in ("web", "outside")]
        return [child for child in self.children if child not in last], last

    def _stop_soon(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _pause(self, seconds: float) -> None:
        if self.stopping:
            raise Stopped
        time.sleep(seconds)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    @contextmanager
    def _progress(self, title: str) -> Iterator[None]:
        began = time.monotonic()
        self.stdout.write(f"{title} ... ", ending="")
        self.stdout.flush()
        yield
        self._say(f"done ({time.monotonic() - began:.1f} s)")


def _migrate() -> None:
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except OperationalError as error:
        raise CommandError(f"The database does not answer. Check DATABASE_URL and the server.\n{error}") from error


def _web_server(port: int) -> list[str]:
    where = ["--host", HOST, "--port", str(port)]
    # Open websockets would otherwise hold the shutdown for ever; and django-structlog writes the requests already.
    how = ["--timeout-graceful-shutdown", "2", "--no-access-log", "--ws-per-message-deflate", "false"]
    return ["-m", "uvicorn", "agentops.asgi:application", *where, *how]


def _port_to_use() -> int:
    """Asked first: a page that cannot open is best said before anything else is started."""
    wish = os.environ.get("PORT") or "8000"
    if not (wish.isdigit() and 0 < int(wish) < 65536):
        raise CommandError(f"PORT is {wish!r}: it must be a number from 1 to 65535, as in `PORT=9000 make run`.")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, int(wish)))
        except PermissionError as error:
            raise CommandError(f"Port {wish} is reserved for root. Choose a higher one: `PORT=9000 make run`.") from error
        except OSError as error:
            raise CommandError(
                f"Port {wish} is in use by another program, perhaps another `make run`. "
                "Stop that, or choose another port: `PORT=9000 make run`."
            ) from error
    return int(wish)


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind((HOST, 0))
        return int(tried.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    """Without urllib, which would ask a proxy for our own page."""
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
