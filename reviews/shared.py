"""What many pages ask of this process at one moment is asked of the database once, for all of them."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, wait
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import connection

ALONE_SECONDS = 2.0  # for asking each by itself after an error
Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """Every answer is from after its question: whoever comes while one is asked waits for the next, with all who come then."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._asked: dict[Hashable, Future[Answer]] = {}  # on its way to the database
        self._next: dict[Hashable, Future[Answer]] = {}  # begins when that has ended

    def get(self, key: Hashable, question: Callable[[], Answer]) -> Answer:
        """The answer to this question, or to the same of somebody else. Raises what the question raises."""
        with self._lock:
            answer = self._next.get(key)
            before = self._asked.get(key)
            if is_mine := answer is None:
                answer = self._next[key] = Future()
        if is_mine:
            if before:
                wait([before])
            self._ask(key, question, answer)
        return answer.result()

    def _ask(self, key: Hashable, question: Callable[[], Answer], answer: Future[Answer]) -> None:
        with self._lock:
            self._asked[key] = self._next.pop(key)
        try:
            found = question()
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            self._end(key)
            answer.set_exception(error)
        else:
            self._end(key)
            answer.set_result(found)

    def _end(self, key: Hashable) -> None:
        with self._lock:
            del self._asked[key]


class Together(Generic[Question, Answer]):
    """For sockets: what they ask while one question is under way is asked together after it, in a thread of its own."""

    def __init__(self, answers: Callable[[Sequence[Question]], Sequence[Answer]]) -> None:
        self._answers = answers
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, list[tuple[Question, asyncio.Future[Answer]]]]
        self._of_loops = WeakKeyDictionary()
        self._asking: set[asyncio.Task[None]] = set()

    async def get(self, question: Question) -> Answer:
        """Its answer. Raises what asking raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if loop not in self._of_loops:
            self._of_loops[loop] = []
            task = loop.create_task(self._ask(loop))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        self._of_loops[loop].append((question, answer))
        return await answer

    async def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while asked := self._of_loops[loop]:
                self._of_loops[loop] = []
                await self._answer(asked)
        finally:
            for _, answer in self._of_loops.pop(loop):
                answer.cancel()

    async def _answer(self, asked: "list[tuple[Question, asyncio.Future[Answer]]]") -> None:
        wanted = [(question, answer) for question, answer in asked if not answer.done()]  # others have hung up
        found = await sync_to_async(self._found, thread_sensitive=False)([question for question, _ in wanted])
        for (_, answer), one in zip(wanted, found, strict=True):
            if answer.done():
                continue
            if isinstance(one, Exception):
                answer.set_exception(one)
            else:
                answer.set_result(one)

    def _found(self, questions: Sequence[Question]) -> "Sequence[Answer | Exception]":
        """An error of all is of those only that raise it alone, unless finding that out takes long: what is away is away."""
        try:
            return self._answers(questions)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            until = monotonic() + ALONE_SECONDS
            alone = questions if len(questions) > 1 else ()
            found = [self._found([question])[0] if monotonic() < until else error for question in alone]
            return found or [error] * len(questions)
        finally:
            connection.close()
