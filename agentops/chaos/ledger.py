"""The ledger: a file that plays the outside world of a trial, in which every effect is one line that no fault takes back."""

import json
import os
from pathlib import Path
from typing import Any

LEDGER = "AGENTOPS_CHAOS_LEDGER"  # names the file in the environment of every process of a trial
STEP_SECONDS = "AGENTOPS_CHAOS_STEP_SECONDS"  # how long an effect takes after it has happened


def write(line: dict[str, Any]) -> None:
    """Append the line in one piece, however many processes write."""
    file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{json.dumps(line)}\n".encode())
    finally:
        os.close(file)


def lines() -> list[dict[str, Any]]:
    """Every effect so far."""
    path = Path(os.environ[LEDGER])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
