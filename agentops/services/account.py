"""Chooses the account PostgreSQL runs as, because PostgreSQL refuses to run as root."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agentops.services.failure import ServicesFailure


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int

    def can_use(self, path: Path) -> bool:
        """Asked by trying: permissions of every parent, ACLs and mount options are the kernel's business."""
        try:
            tried = subprocess.run(
                ["/bin/sh", "-c", 'test -x "$1"', "sh", path],
                check=False,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
            )
        except PermissionError as error:
            raise ServicesFailure(
                f"PostgreSQL must not run as root, and root may not become {self.name} here. "
                "Run as an ordinary user, or set DATABASE_URL to a PostgreSQL server you have."
            ) from error
        return tried.returncode == 0


def account_for(project: Path, data: Path) -> Account | None:
    """None where we are not root; otherwise the first ordinary account among those that fit."""
    if os.geteuid() != 0:
        return None
    owner_of_data = str(data.stat().st_uid) if data.exists() else None
    wishes = (owner_of_data, os.environ.get("AGENTOPS_PG_USER"), os.environ.get("SUDO_UID"), str(project.stat().st_uid))
    for wish in (*wishes, "postgres", "nobody"):
        account = _look_up(wish)
        if account and account.uid != 0:
            return account
    raise ServicesFailure(
        "PostgreSQL must not run as root, and no other account was found. "
        "Name one in AGENTOPS_PG_USER, or set DATABASE_URL to a PostgreSQL server you have."
    )


def _look_up(wish: str | None) -> Account | None:
    if not wish:
        return None
    try:
        entry = pwd.getpwuid(int(wish)) if wish.isdigit() else pwd.getpwnam(wish)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
