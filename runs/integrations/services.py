"""What apprise connects by (requests, on urllib3): its connections end with the attempt, and say when they are made."""

import socket  # noqa: TID251 - what urllib3 makes
from functools import cache

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from runs.integrations import deadline
from runs.reliability import guard


class _Watched(HTTPConnection):
    """Also of what is not called by guard, which has no deadline."""

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        deadline.watch(made.fileno())
        return made

    def connect(self) -> None:
        super().connect()
        if guard.is_calling():
            guard.connected()


class _WatchedOverTLS(_Watched, HTTPSConnection):
    pass


@cache
def watch() -> None:
    """In this process, from now on: apprise has no place at which a connection of our own could be given to it."""
    HTTPConnectionPool.ConnectionCls = _Watched
    HTTPSConnectionPool.ConnectionCls = _WatchedOverTLS
