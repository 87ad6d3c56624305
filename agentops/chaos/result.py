"""The last result of chaos: where it is kept, and the table of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings

SHIPPED = Path(__file__).with_name("result.json")  # of the full form, as it was when this release was made
COLUMNS = (
    "fault", "count", "target", "runs", "lost", "re_executed", "duplicates", "stale_writes", "other",
    "recovery_p95", "recovery_max", "seconds",
)  # fmt: skip


def keep(result: dict[str, Any]) -> None:
    """As the last one of this checkout."""
    _own().parent.mkdir(parents=True, exist_ok=True)
    _own().write_text(json.dumps(result, indent=1) + "\n")


def latest() -> dict[str, Any] | None:
    """The last one of this checkout, else the one that came with the release; None where there is neither."""
    for file in (_own(), SHIPPED):
        if file.exists():
            found: dict[str, Any] = json.loads(file.read_text())
            return found | {"at": datetime.fromisoformat(found["at"]), "shipped": file == SHIPPED}
    return None


def stamped(result: dict[str, Any]) -> dict[str, Any]:
    """With the time of its end."""
    return {"at": datetime.now(UTC).isoformat(timespec="seconds")} | result


def scale(result: dict[str, Any]) -> str:
    """How much less than is wanted the full form has come to: what held, held at that."""
    faults = [one for one in result["faults"] if one.get("target")] if result["form"] == "full" else []
    less = sum(one["count"] < one["target"] for one in faults)
    return f"On this machine {less} of {len(faults)} faults came less often than is wanted." if less else ""


def table(result: dict[str, Any]) -> str:
    rows = [COLUMNS, *([_cell(fault[column]) for column in COLUMNS] for fault in result["faults"])]
    widths = [max(len(str(row[index])) for row in rows) for index in range(len(COLUMNS))]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{fault['fault']}: {name} {value:g}" for fault in result["faults"] for name, value in fault["figures"].items()]
    verdict = "Everything held." if result["held"] else "Not everything held."
    return "\n".join(
        [
            *lines,
            "",
            *result["broken"],
            *filter(None, [scale(result)]),
            f"{verdict} Seed {result['seed']}, {result['seconds']:g} s, {result['form']}.",
        ]
    )


def _own() -> Path:
    return Path(settings.AGENTOPS_LOCAL) / "chaos.json"


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
