"""In production every answer carries what protects its reader; what is refused at the edge is in the log."""

import json
import subprocess
import sys

import pytest
from asgiref.sync import sync_to_async
from django.test import Client
from structlog.testing import capture_logs

from reviews.models import Review
from runs import commands, executor
from tests import agents, processes
from tests.test_live import hang_up, opened, socket, started

# Every page that takes no argument or one of this run, as the admin, the outsider and a stranger get it.
CRAWL = """
import json, re, sys, django
from django.conf import settings
settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"  # nothing is collected here
settings.PRODUCTION = False  # only this: the services of tests would be refused
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from tests import agents
found = []
for name in ("admin", "outsider", ""):
    client = Client(raise_request_exception=False)
    if name:
        client.force_login(User.objects.get(username=name))
    for path in json.loads(sys.argv[1]):
        answer = client.get(path, secure=True)
        text = "" if answer.streaming else answer.content.decode(errors="replace")
        links = re.findall(r'(?:src|href|action|srcset|poster|data)="(?:https?:)?//([^"/]+)', text)
        cookies = [(one.key, bool(one["secure"]), bool(one["httponly"]), one["samesite"], one["path"], one["domain"])
                   for one in answer.cookies.values()]
        found.append([name, path, answer.status_code, dict(answer.headers), links, cookies, "Traceback" in text])
print(json.dumps(found))
"""
HEADERS = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PAGES = ["/", "/runs/", "/runs/export.csv", "/reviews/", "/reviews/history/", "/reviews/numbers/", "/notices/", "/agents/"]
PAGES += [
    "/agents/guessing/",
    "/agents/guessing/start/",
    "/dependencies/",
    "/operations/",
    "/alerts/",
    "/alerts/rules/",
    "/about/",
]
PAGES += ["/accounts/login/", "/accounts/password/change/", "/admin/", "/admin/runs/run/", "/gone/", "/healthz", "/metrics"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("people")
def test_every_answer_of_a_crawl_in_production_is_protected() -> None:
    run = commands.start("guessing", {"text": "hello", "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    of_run = [f"/runs/{run.pk}/{more}" for more in ("", "events/", "events/?format=json", "parts/step-1/", "steps/1/fork/")]
    paths = [*PAGES, *of_run, f"/reviews/{Review.objects.get().pk}/"]
    more = {
        "AGENTOPS_ENV": "production",
        "SECRET_KEY": "k" * 60,
        "ALLOWED_HOSTS": "testserver",
        "DJANGO_SETTINGS_MODULE": "agentops.settings",
    }
    command = [sys.executable, "-c", CRAWL, json.dumps(paths)]
    ended = subprocess.run(
        command, cwd=processes.ROOT, env=processes.environment(**more), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found) == 3 * len(paths)
    for name, path, status, headers, links, cookies, traced in found:
        about = (name, path, status)
        assert status < 500, about
        assert {key: headers.get(key) for key in HEADERS} == HEADERS, about
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy, about
        assert "unsafe" not in policy, about
        assert "report-uri /blocked/" in policy, about
        assert (links, traced) == ([], False), about
        kept = (
            headers.get("Cache-Control", "") if status == 200 and not path.startswith(("/healthz", "/accounts/")) else "no-store"
        )
        assert "no-store" in kept, about
        for key, secure, http_only, same_site, at, domain in cookies:
            assert (key.startswith("__Host-") or key == "messages", secure, http_only, same_site, at, domain) == (
                True, True, True, "Lax", "/", ""
            ), (about, key)  # fmt: skip


def report_of(blocked: str) -> str:
    page = "https://here/reviews/?text=Omar+Moreau"
    return json.dumps({"csp-report": {"effective-directive": "img-src", "blocked-uri": blocked, "document-uri": page}})


def test_what_a_browser_was_not_allowed_to_do_is_in_the_log_once_and_odd_reports_are_refused(db: None) -> None:
    report = {"effective-directive": "script-src-elem", "blocked-uri": "inline", "document-uri": "https://here/runs/1/\n"}
    client = Client(enforce_csrf_checks=True)
    sort = "application/csp-report"
    with capture_logs() as logs:
        for _ in range(3):
            answer = client.post("/blocked/", json.dumps({"csp-report": report}), content_type=sort)
            assert answer.status_code == 204
        for odd in ("", "[]", '{"csp-report": 3}', '{"csp-report": []}', "x" * 100_000, "[" * 16_000, report_of("https://[")):
            assert client.post("/blocked/", odd, content_type=sort).status_code == 400
        told = [(one["directive"], one["what"], one["page"]) for one in logs if one["event"] == "content_blocked"]
        assert told == [("script-src-elem", "inline", "https://here/runs/1/")]
        for number in range(200):
            client.post("/blocked/", report_of(f"https://me:pass@cdn:8/{number}?q=Omar+Moreau#a"), content_type=sort)
    told = [(one["what"], one["page"]) for one in logs if one["event"] == "content_blocked"][1:]
    assert 30 < len(told) < 50, "whoever likes may write there, but not as much as they like"
    assert ("https://cdn:8/0", "https://here/reviews/") in told


@pytest.mark.django_db(transaction=True)
async def test_sockets_that_are_refused_or_spoken_to_are_in_the_log_and_nobody_else_is_told(people) -> None:
    run = await sync_to_async(started)()
    paths = ["/ws/runs/", f"/ws/runs/{run.pk}/", "/ws/inbox/"]
    frames = ['{"type": "changed", "run": 1}', '{"type": "group_add", "group": "runs"}', "x" * 66_560, b"\x00" * 66_560]
    with capture_logs() as logs:
        for path in paths:
            for person, origin in (
                (None, b"http://localhost"),
                ("outsider", b"http://localhost"),
                ("admin", b"https://evil.example"),
            ):
                there = await socket(path, people.get(person), origin=origin)
                assert not (await there.connect(timeout=10))[0]
            for frame in frames:
                there = await opened(path, people["reviewer"])
                for _ in range(101 if frame is frames[0] else 1):
                    await there.send_to(**{"bytes_data" if isinstance(frame, bytes) else "text_data": frame})
                while (said := await there.receive_output(timeout=10))["type"] != "websocket.close":
                    assert "group" not in said["text"]
                assert said["code"] == 1003
    refused = [one for one in logs if one["event"] == "socket_refused"]
    assert len(refused) == len(paths) * (3 + len(frames))
    assert {one["path"] for one in refused} == set(paths)


__all__ = ["agents", "hang_up"]
