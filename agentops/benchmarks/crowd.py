"""A full inbox: thousands of reviews that wait, each of a run that can really go on, and a long history of decided ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pgtrigger
from django.contrib.auth.models import Group, User
from django.db import connection
from django.utils import timezone

from agentops import people
from agentops.benchmarks import history
from reviews import decisions
from reviews.models import Decision, Review
from reviews.models.search import SearchText
from runs import commands, executor
from runs.models import Run

REVIEWERS = 20
ALIKE_EVERY = 14  # so many ask the same question
RUNS_OF_HISTORY = 10  # decided reviews of one run

# Every second is gated and of one agent, as the run's log says; the others differ in what a filter asks about.
VARIED = """UPDATE reviews_review SET
  cause = CASE id %% 10 WHEN 1 THEN 'low_confidence' WHEN 3 THEN 'failed' WHEN 5 THEN 'question' WHEN 7 THEN 'low_confidence'
    ELSE cause END,
  agent = CASE id %% 6 WHEN 1 THEN 'letters' WHEN 5 THEN 'refunds' ELSE agent END,
  risk = CASE WHEN id %% 20 = 0 THEN 2 WHEN id %% 4 = 3 THEN 0 ELSE 1 END,
  title = 'Act on order ' || id, same = md5((id / %(alike)s)::text),
  opened_at = %(now)s - make_interval(secs => (%(most)s - id %% %(most)s) * 7)
WHERE state = 'open'"""
TOLD = "UPDATE runs_run SET input_text = 'Order ' || id || ' of customer ' || id %% 997 WHERE status = 'waiting'"
REVIEWS = """WITH one AS MATERIALIZED (SELECT {columns} FROM reviews_review WHERE run_id = %(template)s)
  INSERT INTO reviews_review (run_id, {columns})
  SELECT copy, {columns} FROM one, (SELECT id AS copy FROM runs_run WHERE id > %(template)s) AS run"""
OLD_RUNS = """WITH one AS MATERIALIZED (SELECT {columns} FROM runs_run WHERE id = %(template)s)
  INSERT INTO runs_run (status, waiting_cause, finished_at, input_text, {columns})
  SELECT 'succeeded', '', created_at, 'Order ' || number || ' of long ago', {columns}
  FROM one, generate_series(1, %(count)s) AS number RETURNING id"""
OLD_REVIEWS = """WITH one AS MATERIALIZED (SELECT {columns} FROM reviews_review WHERE run_id = %(template)s)
  INSERT INTO reviews_review (run_id, position, state, proposal, title, risk, opened_at, closed_at, {columns})
  SELECT %(first)s + number / %(each)s, 1 + number %% %(each)s, 'decided', jsonb_build_object('amount', number %% 500),
    'Act on order ' || number, number %% 3, at - interval '5 minutes', at, {columns}
  FROM one, generate_series(0, %(count)s - 1) AS number, LATERAL (
    SELECT %(now)s - make_interval(secs => (%(count)s - number) * 60) AS at) AS moment"""
# what the trigger of each review writes, which is disabled meanwhile
SEARCHED = """INSERT INTO reviews_searchtext (review_id, text)
  SELECT review.id, lower(left(concat_ws(' ', review.title, run.input_text, review.proposal::text), 4000))
  FROM reviews_review AS review JOIN runs_run AS run ON run.id = review.run_id ON CONFLICT DO NOTHING"""
OLD_DECISIONS = """WITH one AS MATERIALIZED (SELECT {columns} FROM reviews_decision)
  INSERT INTO reviews_decision (review_id, actor_id, kind, reason, decided_at, {columns})
  SELECT old, (%(actors)s::bigint[])[1 + old %% cardinality(%(actors)s::bigint[])],
    CASE old %% 5 WHEN 0 THEN 'reject' ELSE 'approve' END, CASE old %% 5 WHEN 0 THEN 'It is not ours' ELSE '' END,
    closed_at, {columns}
  FROM one, (SELECT id AS old, closed_at FROM reviews_review WHERE run_id >= %(first)s) AS review"""


def make(*, waiting: int, decided: int) -> list[User]:
    """Fill an empty database; the reviewers who have decided all that is decided."""
    people.ensure_groups()
    users = [_reviewer(number) for number in range(1, REVIEWERS + 1)]
    with _indexed_afterwards():
        _fill(waiting, decided, users)
    with connection.cursor() as cursor:
        cursor.execute("RESET enable_seqscan")
        cursor.execute("VACUUM ANALYZE")
    return users


@contextmanager
def _indexed_afterwards() -> Iterator[None]:
    """An index of every three letters takes minutes when it grows row by row, and seconds when it is made at once."""
    index = SearchText._meta.indexes[0]
    with connection.schema_editor() as editor:
        editor.remove_index(SearchText, index)
    yield
    with connection.schema_editor() as editor:
        editor.add_index(SearchText, index)


def _fill(waiting: int, decided: int, users: list[User]) -> None:
    done, waits = _at_its_gate(), _at_its_gate()
    decisions.decide(done.pk, actor=users[0], kind="approve", seen=done.fingerprint)
    history.multiply([history.log_of(waits.run_id)], copies=waiting - 1)
    told: dict[str, Any] = {"template": waits.run_id, "now": timezone.now(), "most": waiting, "alike": ALIKE_EVERY}
    connection.close()  # with the plans of its checks, which are from when the tables had one page
    _execute("SET enable_seqscan = off", "", {})
    pgtrigger.disable("reviews.Review:fill_search_text")
    _execute(REVIEWS, history.columns(Review, "id", "run_id"), told)
    _execute(VARIED, "", told)
    _execute(TOLD, "", {})
    _decided(decided, told | {"template": done.run_id, "actors": [user.pk for user in users]})
    _execute(SEARCHED, "", {})
    pgtrigger.enable("reviews.Review:fill_search_text")


def _at_its_gate() -> Review:
    run_id = commands.start("bench-gate", {}, by="bench").pk
    executor.advance(run_id, owner="bench")
    return Review.objects.get(run=run_id)


def _decided(count: int, told: dict[str, Any]) -> None:
    runs = history.columns(Run, "id", "status", "waiting_cause", "finished_at", "input_text")
    first = _execute(OLD_RUNS, runs, told | {"count": count // RUNS_OF_HISTORY + 1})
    own = history.columns(Review, "id", "run_id", "position", "state", "proposal", "title", "risk", "opened_at", "closed_at")
    _execute(OLD_REVIEWS, own, told | {"first": first, "count": count, "each": RUNS_OF_HISTORY})
    own = history.columns(Decision, "id", "review_id", "actor_id", "kind", "reason", "decided_at")
    _execute(OLD_DECISIONS, own, told | {"first": first})


def _reviewer(number: int) -> User:
    user, _ = User.objects.get_or_create(username=f"reviewer{number}")
    user.groups.add(Group.objects.get(name="Reviewer"))
    return user


def _execute(statement: str, columns: str, told: dict[str, Any]) -> int:
    """The first number of what it returns, where it returns some."""
    with connection.cursor() as cursor:
        cursor.execute(statement.replace("{columns}", columns), told)
        return int(cursor.fetchone()[0]) if cursor.description else 0
