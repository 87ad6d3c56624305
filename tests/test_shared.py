"""What many ask at one moment is asked once, and nobody gets an answer that is older than their question."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from reviews import shared
from reviews.shared import Shared, Together
from tests.processes import eventually


def test_who_comes_while_one_is_asked_waits_for_the_next_and_shares_it() -> None:
    answers, begun, go_on = Shared[int](), threading.Event(), threading.Event()
    asked: list[int] = []
    late: list[int] = []

    def question() -> int:
        asked.append(len(asked) + 1)
        begun.set()
        assert go_on.wait(30)
        return asked[-1]

    first = threading.Thread(target=lambda: answers.get("rows", question))
    first.start()
    assert begun.wait(30)
    others = [threading.Thread(target=lambda: late.append(answers.get("rows", question))) for _ in range(8)]
    for one in others:
        one.start()
    eventually(lambda: "rows" in answers._next and len(answers._next["rows"]._condition._waiters) == 7)  # the eighth will ask
    assert answers.get("others", lambda: 7) == 7, "another question waits for nobody"
    go_on.set()
    for one in (first, *others):
        one.join(30)
    assert (asked, late) == ([1, 2], [2] * 8), "the first answer is from before they came"
    assert (answers._asked, answers._next) == ({}, {})


def test_an_error_is_everybodys_and_the_next_who_asks_asks_anew() -> None:
    answers = Shared[int]()
    with pytest.raises(ZeroDivisionError):
        answers.get("rows", lambda: 1 // 0)
    assert answers.get("rows", lambda: 5) == 5


async def test_sockets_ask_together_what_they_ask_while_one_question_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def answers(questions: Sequence[int]) -> list[int]:
        asked.append(list(questions))
        begun.set()
        assert go_on.wait(30)
        return [12 // one for one in questions]

    together = Together[int, int](answers)
    first = [asyncio.create_task(together.get(number)) for number in (1, 2)]
    await asyncio.to_thread(begun.wait, 30)
    others = [asyncio.create_task(together.get(number)) for number in (3, 4, 6)]
    await asyncio.sleep(0)
    others[1].cancel()
    go_on.set()
    assert await asyncio.gather(*first, others[0], others[2]) == [12, 6, 4, 2]
    assert asked == [[1, 2], [3, 6]], "who has hung up is not asked for"
    with pytest.raises(ZeroDivisionError):
        await together.get(0)
    assert await together.get(5) == 2
    found = await asyncio.gather(*(together.get(number) for number in (3, 0, 6)), return_exceptions=True)
    assert [type(one) if isinstance(one, Exception) else one for one in found] == [4, ZeroDivisionError, 2]
    monkeypatch.setattr(shared, "ALONE_SECONDS", 0.0)
    found = await asyncio.gather(*(together.get(number) for number in (3, 0)), return_exceptions=True)
    assert [type(one) for one in found] == [ZeroDivisionError] * 2, "what is away is not asked again and again"
