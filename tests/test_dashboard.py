"""The dashboard: which job processes live, and the reviews that wait longest."""

import time
from datetime import timedelta

import django_rq
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rq import Queue, SimpleWorker, Worker
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from agentops import dashboard
from reviews.models import Cause, Review
from runs import commands
from runs.latest import LATEST, latest
from runs.models import Run
from tests import test_pages_dependencies as shop
from tests.test_pages_runs import carried

pytestmark = pytest.mark.django_db


def test_a_job_process_that_says_nothing_is_silent_and_comes_last(signed_in):
    redis = django_rq.get_connection("default")
    for name in ("a-was-killed", "b-is-alive", "c-has-expired"):
        process = Worker(["default"], name=name, connection=redis)
        process.register_birth()
        process.set_state("busy")
    redis.hset("rq:worker:a-was-killed", "last_heartbeat", utcformat(timezone.now() - timedelta(seconds=40)))
    redis.delete("rq:worker:c-has-expired")
    page = signed_in().get("/")
    found = [(process.name, process.state) for process in page.context["machinery"].processes]
    assert found == [("b-is-alive", "busy"), ("a-was-killed", "silent")]
    assert page.text.index("Busy</span>") < page.text.rindex("Silent</span>") < page.text.index("a-was-killed, last seen")
    assert "No job process is alive" not in page.text
    redis.delete("rq:worker:b-is-alive")
    assert "No job process is alive" in signed_in().get("/").text


def test_a_job_lost_with_its_process_is_not_an_error(signed_in):
    redis = django_rq.get_connection("default")
    queue = Queue("default", connection=redis, serializer=JSONSerializer)
    process = SimpleWorker([queue], name="a-process", connection=redis, serializer=JSONSerializer)
    queue.enqueue("no.such.function", failure_ttl=60)
    process.work(burst=True)
    for _ in range(2):
        job = queue.enqueue("no.such.function", failure_ttl=60)
        process.prepare_execution(job)
        process.prepare_job_execution(job)  # and here it was killed
    queue.started_job_registry.cleanup(timestamp=time.time() + 3600)
    assert queue.failed_job_registry.count == 3
    page = signed_in().get("/")
    assert (page.context["machinery"].failed, page.context["machinery"].lost) == (1, 2)
    assert "<strong>1 job</strong> in the last hour" in page.text
    assert "2 jobs in the last hour, because a job process ended" in page.text


def test_the_oldest_reviews_are_shown_and_how_many_more_there_are(signed_in):
    for number in range(8):
        carried("paying", text=f"order {number}")
    page = signed_in().get("/").text
    people = page[page.index('id="people"') : page.index('id="runs"')]
    assert [f"order {number}<" in people for number in range(8)] == [True] * 6 + [False] * 2
    assert "and 2 more" in people


def test_the_dashboard_shows_what_needs_a_person_by_cause(signed_in):
    carried("paying", text="Pay me")
    carried("guessing", number=1)
    page = signed_in("reviewer").get("/")
    assert dict(page.context["causes"])[Cause.GATED] == 1
    assert dict(page.context["causes"])[Cause.LOW_CONFIDENCE] == 1
    assert Review.objects.open().count() == 2
    assert "Pay me" in page.text


def test_an_empty_dashboard_says_what_to_do(signed_in):
    page = signed_in().get("/").text
    assert "Nobody is needed" in page
    assert "There is no run yet" in page
    assert "No job process is alive" in page


def test_dependencies_are_there_those_in_trouble_first(signed_in):
    shop.open_breaker()
    run = shop.carried("buy")
    assert run.status == "waiting"
    page = signed_in().get("/").text
    section = page[page.index('id="dependencies-title"') : page.index("</section>", page.index('id="dependencies-title"'))]
    first = section[: section.index("</li>")]
    assert "</svg>Open</span>" in first
    assert 'href="/dependencies/shop/">shop</a>' in first
    assert "1 run waits" in first
    assert "</svg>Closed</span>" in section


@pytest.mark.parametrize("part", ["people", "runs", "machinery", "dependencies"])
def test_each_part_of_the_dashboard_can_be_asked_for(signed_in, part):
    answer = signed_in().get("/", {"part": part}).text
    assert f'id="{part}"' in answer
    assert "<html" not in answer


def test_the_dashboard_asks_the_database_little(signed_in, django_assert_max_num_queries):
    client = signed_in()
    for _ in range(12):
        carried("paying")
    with django_assert_max_num_queries(15):
        assert client.get("/").status_code == 200


def test_neither_the_dashboard_nor_the_agents_read_all_of_a_long_history(signed_in):
    a_long_history(20_000)
    with CaptureQueriesContext(connection) as queries:
        told = signed_in().get("/", {"part": "runs"}).context["counts"]
        found = latest(["counting", "never-started"])
    assert 600 < dict(told)["succeeded"] < 700, "those of the last day"
    assert (found["counting"].counts, found["never-started"].counts) == ({"succeeded": LATEST}, {})
    by_status = next(one["sql"] for one in queries if '"all"' in one["sql"])
    assert "Seq Scan on runs_run" not in plan(by_status)
    of_each = next(one["sql"] for one in queries if "LATERAL" in one["sql"])
    assert "run_agent_newest" in plan(of_each), "not the newest of all, of which an agent may have none"


def a_long_history(number: int) -> None:
    """Runs that succeeded, over thirty days; the first of them at the last moment."""
    pk = commands.start("counting", {"text": "again"}, by="operator").pk
    Run.objects.filter(pk=pk).update(status="succeeded", created_at=timezone.now())
    columns = ", ".join(one.column for one in Run._meta.fields if one.name not in ("id", "created_at"))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO runs_run (created_at, {columns}) SELECT created_at - n * interval '30 days' / %s, {columns}"
            " FROM runs_run, generate_series(1, %s) AS n WHERE id = %s",
            [number, number - 1, pk],
        )
        cursor.execute("ANALYZE runs_run")


def plan(query: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}")
        return "\n".join(line for (line,) in cursor.fetchall())


def test_without_redis_the_dashboard_says_so(signed_in, monkeypatch):
    import redis

    nobody = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
    with monkeypatch.context() as away:
        away.setattr(dashboard.django_rq, "get_connection", lambda name: nobody)
        page = signed_in().get("/")
    assert page.status_code == 200
    assert "Redis cannot be reached" in page.text
