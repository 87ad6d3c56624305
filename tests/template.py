"""Whatever database a session makes is a copy of a migrated one: of PostgreSQL's template1, which its first process migrates."""

import fcntl
import os
from pathlib import Path

from django.core.management import call_command
from django.db import connection

from agentops.pytest_plugin import SESSION, TEMPLATE
from runs import pen


def migrated() -> None:
    """A copy is there in a tenth of a second, a new migration takes seconds. A server of somebody else is left as it is."""
    file = Path(os.environ[SESSION]) / TEMPLATE
    if not file.exists():
        return
    with file.open("a") as state:
        fcntl.flock(state, fcntl.LOCK_EX)
        if not state.tell():
            _migrate("template1")
            state.write("migrated")


def _migrate(name: str) -> None:
    connection.close()
    before, connection.settings_dict["NAME"] = connection.settings_dict["NAME"], name
    try:
        call_command("migrate", verbosity=0, interactive=False)
    finally:
        connection.close()  # nobody may be connected to what is copied
        pen.close()
        connection.settings_dict["NAME"] = before
