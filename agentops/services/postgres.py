"""One PostgreSQL server on a socket of its own: starts it, asks whether it answers, stops it."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from agentops.services import process
from agentops.services.account import Account, account_for
from agentops.services.failure import ServicesFailure
from agentops.services.places import PROJECT, data_home, private_directory, reachable_programs, socket_directory
from agentops.services.programs import postgres_major, postgres_programs

NAME = "agentops"  # of the superuser and of the database
DURABLE = ("max_connections=200",)
# A test's data is thrown away, so nothing is gained by waiting for the disk.
THROW_AWAY = (*DURABLE, "fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class Postgres:
    home: Path
    sockets: Path
    programs: Path
    account: Account | None
    throw_away: bool

    title = "PostgreSQL"
    variable = "DATABASE_URL"

    @property
    def url(self) -> str:
        """The directory goes into `host=`, since a host in the usual place is lowercased by URL parsers."""
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(self.sockets))}"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        if self.answers():
            return
        if not self.data.exists():
            self._initialise()
        process.start_until_it_answers(self.title, self._launch, self.answers, lambda: self.pid() is not None, self.log)
        with self._connect("postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))

    def stop(self) -> None:
        # SIGINT is PostgreSQL's fast shutdown: it rolls back what is open and writes a checkpoint.
        process.stop(self.pid, [(signal.SIGINT, 15), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)])

    def pid(self) -> int | None:
        return process.server_in(self.data / "postmaster.pid", mentioning=self.data)

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.sockets), user=NAME, dbname=database, connect_timeout=5, autocommit=True)

    def _initialise(self) -> None:
        """Made beside its place and renamed, so that a killed initdb never passes for a cluster."""
        unfinished = self.home / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        private_directory(unfinished, self.account)
        where_and_how = ("-D", unfinished, "-U", NAME, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        initdb = process.launch(
            (self.programs / "initdb", *where_and_how, *(("--no-sync",) if self.throw_away else ())),
            log=self.log,
            account=self.account,
            environment=_environment(),
        )
        if initdb.wait() != 0:
            raise ServicesFailure(f"PostgreSQL's initdb failed. The end of {self.log} says:\n{process.tail(self.log)}")
        unfinished.rename(self.data)

    def _launch(self) -> None:
        self._clear_stale_locks()
        settings = ("listen_addresses=", f'unix_socket_directories="{self.sockets}"', *self._settings())
        launched = process.launch(
            [self.programs / "postgres", "-D", self.data, *(part for one in settings for part in ("-c", one))],
            log=self.log,
            account=self.account,
            environment=_environment(),
            on_parents_death=signal.SIGQUIT if self.throw_away else None,
        )
        process.wait_until(lambda: self.pid() is not None or launched.poll() is not None, 60)

    def _settings(self) -> tuple[str, ...]:
        return THROW_AWAY if self.throw_away else DURABLE

    def _clear_stale_locks(self) -> None:
        """After kill -9 both locks stay; with their process id in use again PostgreSQL would refuse to start."""
        for lock in (self.data / "postmaster.pid", self.sockets / ".s.PGSQL.5432.lock"):
            if process.server_in(lock, mentioning=self.data) is None:
                lock.unlink(missing_ok=True)


def postgres(local: Path, *, throw_away: bool = False) -> Postgres:
    programs = postgres_programs()
    # The major version in the name: newer programs never open an older cluster.
    directory = f"pg{postgres_major(programs)}"
    account = account_for(PROJECT, local / directory / "data")
    home = private_directory(data_home(local, account) / directory, account)
    return Postgres(
        home=home,
        sockets=private_directory(socket_directory(local, account) / "postgres", account),
        programs=reachable_programs(programs, account),
        account=account,
        throw_away=throw_away,
    )


def _environment() -> dict[str, str]:
    """Without PG*: a PGDATA or PGPORT of the person's shell is meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
