"""Text that cannot be stored, numbers that are none, and names that are too long: said, and nothing is lost."""

import pytest

from runs import audit, commands, event_log
from runs.engine.errors import GiveUp
from runs.sdk import Result
from tests.scripted import SCRIPT, advanced, blank, judged, odd_text_or_plain, one_step, plain, raises, started, why

__all__ = ["blank"]
pytestmark = pytest.mark.django_db


def test_odd_text_of_errors_is_stored_and_asks_a_person() -> None:
    SCRIPT["plain"] = lambda: raises(GiveUp("odd \x00 and \ud800 " + "x" * 5_000_000))
    run = advanced(started(one_step(plain)))
    assert "odd \ufffd and ?" in why(run)
    assert sum(len(str(fact.data)) for fact in event_log.facts(run.pk)) < 40_000


def test_odd_text_of_a_supervisors_error_fails_the_run() -> None:
    run = advanced(started(lambda run: raises(ValueError("odd \x00"))))
    assert (run.status, run.error["message"]) == ("failed", "odd \ufffd")


def test_odd_text_before_a_fallback_is_stored() -> None:
    SCRIPT["plain"] = lambda: "plain"
    assert advanced(started(one_step(odd_text_or_plain))).output == {"said": "plain"}


def test_a_step_name_that_is_too_long_is_named() -> None:
    run = advanced(started(lambda run: run.step("n" * 121, plain, text="x")))
    assert "has 121" in run.error["message"]


@pytest.mark.parametrize("confidence", [float("nan"), float("inf"), -1.0, 90.0])
def test_a_confidence_that_is_no_probability_asks_a_person(confidence: float) -> None:
    SCRIPT["judged"] = lambda: Result("x", confidence, source="s" * 500)
    run = advanced(started(one_step(judged)))
    assert (run.status, run.steps.get().confidence) == ("waiting", None)
    assert "not between 0 and 1" in why(run)


def test_a_reason_with_odd_text_is_stored() -> None:
    run = started(one_step(plain))
    commands.cancel(run.pk, by="operator", reason="odd \x00")
    assert event_log.facts(run.pk)[-1].data == {"reason": "odd \ufffd"}


def test_a_configuration_with_a_large_number_verifies() -> None:
    config = commands.configuration("scripted")
    config.values = {"large": 1e16}
    config.save()
    assert audit.first_wrong(started(one_step(plain)).pk) == ""
