"""Where the outside world of this checkout is, as `up` notes it for the commands beside it."""

from pathlib import Path

from django.conf import settings


def note(url: str) -> None:
    _file().parent.mkdir(parents=True, exist_ok=True)
    _file().write_text(url)


def noted() -> str:
    """Empty while `up` does not run. Where it was killed, that of last time."""
    try:
        return _file().read_text().strip()
    except FileNotFoundError:
        return ""


def forget() -> None:
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return Path(settings.AGENTOPS_LOCAL) / "outside.txt"
