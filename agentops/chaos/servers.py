"""The PostgreSQL and Redis of a trial: thrown away at its end, and until then as durable as those of a checkout."""

import os
import signal
from pathlib import Path

from agentops.services import process
from agentops.services.failure import ServicesFailure
from agentops.services.postgres import DURABLE, Postgres, postgres
from agentops.services.valkey import Valkey, valkey

PATIENCE_SECONDS = 20.0


class DurablePostgres(Postgres):
    """Ends with its parent as a throw-away server does, but waits for the disk: a commit that was confirmed must stay."""

    def _settings(self) -> tuple[str, ...]:
        return DURABLE

    def fall(self) -> None:
        """PostgreSQL's immediate shutdown: no checkpoint, nobody is asked; the next start recovers from the log."""
        _end(self.pid(), signal.SIGQUIT)
        if not process.wait_until(lambda: self.pid() is None, PATIENCE_SECONDS):
            raise ServicesFailure(f"PostgreSQL did not stop within {PATIENCE_SECONDS:g} s; the end of {self.log} may say why.")


def servers(directory: Path) -> tuple[DurablePostgres, Valkey]:
    """Both servers of a trial in this directory; neither is started."""
    return DurablePostgres(**vars(postgres(directory, throw_away=True))), valkey(directory, throw_away=True)


def _end(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        os.kill(pid, number)
