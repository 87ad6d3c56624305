"""Columns that hold content: which do, what is made of them in a question, and that what was hidden is not written back."""

import ast

import pytest
from django.apps import apps
from django.db import models, transaction
from django.utils.timezone import now

from runs.models import Run, content
from runs.models.content import Content
from runs.models.event import Event
from tests.test_executor import started
from tests.test_house import MODULES, short
from tests.test_payloads_hidden import CANARY

pytestmark = pytest.mark.django_db


def test_every_column_of_text_is_content_or_is_named_here() -> None:
    """A new column that an agent, a tool or a person fills is hidden, or somebody has said why not."""
    kinds, found = (models.TextField, models.CharField, models.JSONField), dict[str, str]()
    for model in (*apps.get_app_config("runs").get_models(), *apps.get_app_config("reviews").get_models()):
        texts = [one for one in model._meta.fields if isinstance(getattr(one, "base_field", one), kinds)]
        fields = [one for one in texts if not isinstance(one, Content)]
        if fields and fields[0].name != "pgh_label":
            found[model.__name__] = " ".join(one.name for one in fields)
    assert found == PLAIN


# Names, words of closed lists, hashes, settings. Payload.body is asked for by the engine, and by a page that refuses.
PLAIN = {
    "Run": "agent agent_version tags status waiting_cause started_by head_hash lease_owner lost_owner",
    "Hold": "by released_by",
    "Pruning": "by archive head_hash wrong",
    "Tombstone": "head_hash by archive prev_hash hash",
    "Event": "kind actor prev_hash hash",
    "Payload": "hash body",
    "Step": "worker fingerprint status effect cause decision decided_by fallback",
    "AlertRule": "name built_in measure subject kind side zone act act_on changed_by",
    "Alert": "subject state title",
    "AlertEvent": "kind by",
    "AlertChannel": "zone last_error name url",
    "AlertNotice": "kind delivery",
    "Budget": "scope unit closed_by",
    "Reservation": "scopes units",
    "BulkAction": "kind query stopped_by",
    "BulkActionItem": "outcome",
    "AgentConfig": "slug values changed_by",
    "Dependency": "name kind changed_by",
    "BreakerChange": "old new why by",
    "Policy": "agent worker when subject path operator value risk default changed_by",
    "Reading": "measure subject",
    "Round": "failed outcomes",
    "BrokenLog": "wrong",
    "Reveal": "by",
    "RunView": "name query",
    "Review": "agent worker cause subject allowed fingerprint same effect rule state ending default",
    "Decision": "kind tag seen_fingerprint channel",
    "BulkDecision": "kind tag",
    "BulkItem": "seen outcome",
    "Draft": "kind",
    "ReviewEvent": "kind about",
    "NoticeSettings": "zone last_error",
    "Channel": "zone last_error name url",
    "Notice": "kind delivery",
    "Route": "agent cause",
    "SavedView": "name query",
}


def test_a_column_that_a_question_makes_of_content_is_named_here() -> None:
    """It is no Content itself: of what is taken out of one by these, nothing is hidden."""
    names = {one.name for model in apps.get_models() for one in model._meta.fields if isinstance(one, Content)}
    found = set()
    for path in MODULES:
        for call in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]:
            said = [one.value for one in (*call.args, *(word.value for word in call.keywords)) if isinstance(one, ast.Constant)]
            made = [one for one in said if isinstance(one, str) and names & set(one.split("__"))]
            found |= {f"{short(path)}: {ast.unparse(call.func)} {one}" for one in made if ast.unparse(call.func) in MAKE_A_COLUMN}
    assert found == MADE_OF_CONTENT


MAKE_A_COLUMN = {
    "KT", "KeyTextTransform", "Cast", "Coalesce", "Concat", "Func", "JSONBAgg", "JSONObject", "Left", "Length", "Lower",
    "Replace", "Right", "StringAgg", "Substr", "Trim", "Upper",
}  # fmt: skip
MADE_OF_CONTENT = {  # keys that are told; what `find` asks in the database; reasons that Run.hold and Run.revealed hide
    "runs/models/held.py: KT data__dependency", "runs/models/held.py: KT data__budget", "runs/models/held.py: KT data__needs",
    "runs/timeline.py: Cast data", "runs/models/run.py: JSONObject reason",
}  # fmt: skip


def test_of_an_event_a_key_is_told_by_the_first_of_its_path() -> None:
    run = started("betraying", 0, CANARY)
    data = {
        "input": {"status": CANARY},
        "error": {"kind": "ValueError", "message": CANARY},
        "proposal": {"model": CANARY},
        "attempt": 1,
    }
    event = Event(run=run, seq=99, kind="AttemptFailed", data=data, at=now(), prev_hash="", hash="")
    Event.objects.bulk_create([event])
    paths = ("input__status", "error__kind", "error__message", "proposal__model", "attempt", "input__other")
    asked_for = Event.objects.filter(run=run, seq=99).values_list(*(f"data__{path}" for path in paths))
    assert asked_for.get() == (CANARY, "ValueError", CANARY, CANARY, 1, None)
    with content.hidden():
        hides = content.HIDDEN
        assert asked_for.get() == (hides, "ValueError", hides, hides, 1, None)


def test_what_is_hidden_is_not_written_back() -> None:
    run = started("betraying", 0, CANARY)
    with content.hidden():
        read = Run.objects.get(pk=run.pk)
        assert (read.input, read.input_text) == (content.HIDDEN, content.HIDDEN)
        for name in ("input", "input_text"):
            with pytest.raises(TypeError, match="is hidden here"), transaction.atomic():
                read.save(update_fields=[name])
    assert Run.objects.get(pk=run.pk).input_text == CANARY
