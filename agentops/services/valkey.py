"""One Valkey (or Redis) server on a socket of its own: starts it, asks whether it answers, stops it."""

import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentops.services import process
from agentops.services.places import private_directory, socket_directory
from agentops.services.programs import redis_program


@dataclass(frozen=True)
class Valkey:
    home: Path
    socket: Path
    program: Path
    throw_away: bool

    title = "Redis"
    variable = "REDIS_URL"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def answers(self) -> bool:
        # No retries: redis-py's own would spend seconds on a server that is simply not there.
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def start(self) -> None:
        if not self.answers():
            process.start_until_it_answers(self.title, self._launch, self.answers, lambda: self.pid() is not None, self.log)

    def stop(self) -> None:
        process.stop(self.pid, [(signal.SIGTERM, 10), (signal.SIGKILL, 5)])

    def pid(self) -> int | None:
        return process.server_in(self._pid_file, mentioning=self.socket)

    @property
    def _pid_file(self) -> Path:
        return self.home / "server.pid"

    def _launch(self) -> None:
        launched = process.launch(
            [self.program, *(part for option in self._options() for part in option)],
            log=self.log,
            on_parents_death=signal.SIGKILL if self.throw_away else None,
        )
        process.wait_until(lambda: self.pid() is not None or launched.poll() is not None, 60)

    def _options(self) -> list[tuple[str, str]]:
        return [
            ("--port", "0"),
            ("--unixsocket", str(self.socket)),
            ("--unixsocketperm", "700"),
            ("--dir", str(self.home)),
            ("--pidfile", str(self._pid_file)),
            ("--save", ""),
            ("--appendonly", "no" if self.throw_away else "yes"),
            ("--maxmemory-policy", "noeviction"),
            # Keeps the command line as given: the socket's path in it tells our server from a stranger's.
            ("--set-proc-title", "no"),
        ]


def valkey(local: Path, *, throw_away: bool = False) -> Valkey:
    return Valkey(
        home=private_directory(local / "redis", None),
        socket=private_directory(socket_directory(local, None) / "redis", None) / "redis.sock",
        program=redis_program(),
        throw_away=throw_away,
    )
