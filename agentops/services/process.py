"""Launches a server process, and tells later whether a process id is still that server."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from agentops.services.account import Account
from agentops.services.failure import ServicesFailure

PR_SET_PDEATHSIG = 1
PROC = Path("/proc")  # not on macOS


def launch(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    directory: Path = Path("/"),
    environment: Mapping[str, str] | None = None,
    on_parents_death: signal.Signals | None = None,
) -> subprocess.Popen[bytes]:
    """Start in a session of its own, so that a Ctrl-C in the terminal reaches nobody but the one who stops them in order."""
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=environment,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            # Safe here: whoever starts a server has no other threads yet.
            preexec_fn=partial(die_with_parent, on_parents_death) if on_parents_death else None,
        )


def die_with_parent(wanted: signal.Signals) -> None:
    """Runs in the child before it becomes the program: Linux then signals it when the parent is gone, even by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, wanted)


def server_in(pid_file: Path, *, mentioning: Path) -> int | None:
    """The process id in the file, if that process is this server.

    A bare process id proves nothing: after a reboot or a kill -9 it may be a stranger's or a zombie's.
    The command line of a zombie is empty, and a stranger's does not mention our directory.
    """
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return pid if str(mentioning) in command_line(pid) else None


def command_line(pid: int) -> str:
    """What the process was started with, empty for one that is gone."""
    if PROC.is_dir():
        try:
            return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], check=False, capture_output=True, text=True).stdout


def stop(pid_of: Callable[[], int | None], signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn and wait its seconds, until the server is gone."""
    for wanted, seconds in signals:
        pid = pid_of()
        if pid is None:
            return
        os.kill(pid, wanted)
        if wait_until(lambda: pid_of() is None, seconds):
            return


def start_until_it_answers(
    name: str, launch_server: Callable[[], None], answers: Callable[[], bool], lives: Callable[[], bool], log: Path
) -> None:
    """Six tries a second apart: after a kill -9, old children may still hold the shared memory for some seconds."""
    for _ in range(6):
        if not lives():
            launch_server()
        wait_until(lambda: answers() or not lives(), 60)
        if answers():
            return
        time.sleep(1)
    raise ServicesFailure(f"{name} does not start. The end of {log} says:\n{tail(log)}")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def tail(log: Path, lines: int = 10) -> str:
    if not log.exists():
        return "(nothing)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
