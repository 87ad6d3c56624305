"""What nobody may be made to import by writing its name into Redis: it leaves a trace."""

import os
from pathlib import Path

if "HOSTILE_LEDGER" in os.environ:
    Path(os.environ["HOSTILE_LEDGER"]).touch()


def fires(*args: object) -> None: ...
