"""The page about agentops: versions, and how the last chaos ended."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentops.chaos import result

pytestmark = pytest.mark.django_db

FAULT = {
    "fault": "FLUSHALL", "proof": "R4", "count": 3, "runs": 11, "recovered": 4, "recovery_p95": 0.26, "recovery_max": 0.3,
    "seconds": 5.0, "limit_seconds": 10, "errors": 0, "figures": {},
    "lost": 0, "re_executed": 0, "duplicates": 0, "stale_writes": 0, "other": 0, "held": True,
}  # fmt: skip
RESULT = {
    "at": "2026-11-22T10:00:00+00:00",
    "seed": 4711,
    "form": "quick",
    "held": True,
    "seconds": 80.2,
    "faults": [FAULT],
    "broken": [],
}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.AGENTOPS_LOCAL = tmp_path
    monkeypatch.setattr(result, "SHIPPED", tmp_path / "none.json")


@pytest.mark.usefixtures("kept")
def test_it_says_how_to_run_chaos_where_it_was_never_run(signed_in: Any) -> None:
    page = signed_in().get("/about/").text
    assert "Chaos has not been run here" in page
    assert "manage.py chaos --quick" in page
    assert "PostgreSQL" in page


@pytest.mark.usefixtures("kept")
def test_it_shows_the_last_result_with_its_seed_and_what_did_not_hold(signed_in: Any) -> None:
    result.keep(RESULT)
    page = signed_in().get("/about/").text
    assert "Everything held" in page
    assert "manage.py chaos --quick --seed 4711" in page
    assert "0.3 s" in page
    result.keep(RESULT | {"held": False, "broken": ["Not so: <b>nothing</b>."], "faults": [FAULT | {"held": False, "lost": 2}]})
    page = signed_in().get("/about/").text
    assert "Not everything held" in page
    assert "Not so: &lt;b&gt;nothing&lt;/b&gt;." in page
    assert "Did not hold:" in page


@pytest.mark.usefixtures("kept")
def test_it_shows_what_was_measured_and_at_what_scale(signed_in: Any) -> None:
    limit = FAULT | {"fault": "guard: rate limit", "count": 300, "target": 10_000, "figures": {"utilisation": 0.974, "limit": 50}}
    result.keep(RESULT | {"form": "full", "faults": [FAULT | {"target": 3}, limit]})
    page = signed_in().get("/about/").text
    assert "On this machine 1 of 2 faults came less often than is wanted." in page
    assert "300 of 10,000</td>" in page
    assert 'utilisation <span class="text-nowrap">0.974</span>; limit <span class="text-nowrap">50</span>' in page
    assert "On this machine 1 of 2 faults came less often than is wanted." in result.table(result.latest() or {})


def test_a_result_of_this_checkout_comes_before_the_one_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.AGENTOPS_LOCAL = tmp_path / "local"
    monkeypatch.setattr(result, "SHIPPED", tmp_path / "shipped.json")
    assert result.latest() is None
    (tmp_path / "shipped.json").write_text(json.dumps(RESULT))
    assert (result.latest() or {})["shipped"]
    result.keep(RESULT | {"seed": 5})
    assert ((result.latest() or {})["seed"], (result.latest() or {})["shipped"]) == (5, False)
