"""Whoever listens at a socket: the same people as the sign-in lets in, asked for together."""

import pytest
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.utils.timezone import now
from pytest_django import DjangoAssertNumQueries

from agentops.visitor import session_of
from runs import access, listeners


@pytest.mark.django_db
def test_those_who_listen_are_found_in_three_questions_as_the_sign_in_finds_each(
    people: dict[str, User], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    names = ["reviewer", "reviewer", "admin", "outsider", "operator", "reviewer2", "boss", "late"]
    for name in ("boss", "late"):
        people[name] = User.objects.create(username=name, is_superuser=name == "boss")
    keys = [session_of(people[name]) for name in names]
    User.objects.filter(username="operator").update(is_active=False)
    people["reviewer2"].set_password("another")
    people["reviewer2"].save()
    Session.objects.filter(session_key=keys[-1]).update(expire_date=now())
    people["reviewer"].user_permissions.add(Permission.objects.get(codename="control_run"))
    with django_assert_num_queries(3):
        found = listeners.viewers([*keys, "unknown"])
        assert [key in found and found[key].username for key in keys] == [*names[:4], False, False, "boss", False]
        may = {key: (access.may_look(one), access.may_control(one), access.may_configure(one)) for key, one in found.items()}
    assert [may[key] for key in keys[1:4]] == [(True, True, False), (True, True, True), (False, False, False)]
    assert may[keys[6]] == (True, True, True)
    for one in found.values():
        assert one.get_all_permissions() == ModelBackend().get_all_permissions(User.objects.get(pk=one.pk))
