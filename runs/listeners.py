"""Who listens at the sockets of this process: those that want to know at the same moment whether they still may ask together."""

import asyncio
from collections.abc import Collection
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from runs import access

KEPT = 1000  # sessions, decoded: what a session holds seldom changes


class Listeners:
    """Of one event loop. Every answer is from after its question: whoever comes while one is asked waits for the next."""

    def __init__(self) -> None:
        self._wanted: dict[str, asyncio.Future[User | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def viewer(self, session_key: str) -> User | None:
        answer = self._wanted.setdefault(session_key, asyncio.get_running_loop().create_future())
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(answer)  # it may be another socket's too

    async def _ask(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                await _answer(wanted)
        finally:
            self._asking = None


async def viewer(session_key: str) -> User | None:
    """Whose session it is, with what they may; None where it has ended or its account may not sign in any more."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        _of_loops[loop] = Listeners()
    return await _of_loops[loop].viewer(session_key)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Listeners] = WeakKeyDictionary()


async def _answer(wanted: "dict[str, asyncio.Future[User | None]]") -> None:
    try:
        found = await sync_to_async(_asked, thread_sensitive=False)(list(wanted))  # not behind what others read
        for session_key, answer in wanted.items():
            answer.set_result(found.get(session_key))
    except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
        for answer in wanted.values():
            answer.set_exception(error)
            answer.exception()  # whoever asked may have gone
    finally:
        for answer in wanted.values():
            answer.cancel()  # nothing, unless this was cancelled


def _asked(session_keys: list[str]) -> dict[str, User]:
    try:
        return viewers(session_keys)
    finally:
        connection.close()


def viewers(session_keys: Collection[str]) -> dict[str, User]:
    """Session -> whose it is, as Django's get_user() finds them one by one, in three questions for any number of sessions."""
    in_force = Session.objects.filter(session_key__in=session_keys, expire_date__gt=timezone.now())
    said = {key: _decoded(text) for key, text in in_force.values_list("session_key", "session_data")}
    known = {key: one for key, one in said.items() if one.get(BACKEND_SESSION_KEY) in settings.AUTHENTICATION_BACKENDS}
    ids = {one[SESSION_KEY] for one in known.values() if SESSION_KEY in one}
    people = {str(person.pk): person for person in User.objects.filter(pk__in=ids, is_active=True)}
    access.give_permissions(people.values())
    found = {key: people.get(one.get(SESSION_KEY, "")) for key, one in known.items()}
    return {key: person for key, person in found.items() if person and _is_sealed(person, known[key])}


def _is_sealed(person: User, said: dict[str, Any]) -> bool:
    """Whether the session is from after the last change of the password."""
    seals = (person.get_session_auth_hash(), *person.get_session_auth_fallback_hash())
    return any(constant_time_compare(said.get(HASH_SESSION_KEY, ""), seal) for seal in seals)


@lru_cache(maxsize=KEPT)
def _decoded(text: str) -> dict[str, Any]:
    return Session(session_data=text).get_decoded()
