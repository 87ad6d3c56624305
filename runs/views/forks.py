"""The page from which a run is forked: what is taken over, what is executed again, and with which input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from runs import access, commands, describe, sdk, timeline
from runs.engine.canonical import Large, Unstorable
from runs.engine.policy import Subject
from runs.forms import SchemaForm, TagsForm
from runs.models import AgentConfig, Run, Step
from runs.models.content import are_hidden
from runs.views.runs import found_run

RECORDED: Final = "recorded"
CURRENT: Final = "current"


class TermsForm(forms.Form):
    """Under which configuration the fork goes on, and whether its first step gets the input below."""

    config = forms.ChoiceField(widget=forms.RadioSelect({"class": "form-check-input"}), choices=[(RECORDED, ""), (CURRENT, "")])
    own_input = forms.BooleanField(required=False)

    @property
    def wants_own_input(self) -> bool:
        return bool(self["own_input"].data) if self.is_bound else False


@dataclass
class ForkPage:
    """What the page shows. `form` is None where the input of the step cannot be typed; `why_not` where nothing can be forked."""

    run: Run
    step: Step
    terms: TermsForm
    tags: TagsForm
    form: SchemaForm | None

    @property
    def why_not(self) -> str:
        return commands.unforkable(self.run.pk, self.step.position)

    @property
    def agent(self) -> sdk.Agent | None:
        return sdk.AGENTS.get(self.run.agent)

    @property
    def is_large(self) -> bool:
        return isinstance(self.step.input, Large)

    @property
    def taken_over(self) -> str:
        """ "steps 1 to 4", or "" where it begins with the first."""
        return describe.first_steps(self.step.position - 1) if self.step.position > 1 else ""

    @property
    def effects(self) -> list[Step]:
        """The steps with an effect outside that would be executed again."""
        again = self.run.steps.filter(position__gte=self.step.position)
        return list(again.filter(~Q(effect="none") | Q(worker__startswith=describe.SPAWN)).order_by("position"))

    @property
    def is_of_the_engine(self) -> bool:
        """A sleep, a join or a start of other runs: it has no worker, and its input is the supervisor's alone."""
        return self.step.worker in ("sleep", "join") or self.step.worker.startswith(describe.SPAWN)

    @property
    def config(self) -> AgentConfig | None:
        """The configuration as it is now, where that is another one."""
        found = AgentConfig.objects.filter(slug=self.run.agent).first()
        return found if found and found.version != self.run.config_version else None


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def fork_run(request: HttpRequest, run_id: int, position: int) -> HttpResponse:
    """303 to the new run; 409 it cannot be forked, 422 what was typed does not fit."""
    original = found_run(run_id)
    if are_hidden():
        messages.error(request, "Payloads are hidden, and a fork shows them: you need the permission to see them.")
        return redirect(original)
    step = _step(original, position)
    sent = request.POST if request.method == "POST" else None
    terms, tags = TermsForm(sent, initial={"config": RECORDED}), TagsForm(sent, had=original.tags)
    page = ForkPage(original, step, terms, tags, _editor(step, sent))
    if sent is None:
        return _answer(request, page)
    if page.form and page.form.more:
        return _answer(request, page)
    if not page.terms.is_valid() or not page.tags.is_valid() or not _input_is_valid(page):
        return _answer(request, page, status=422)
    try:
        forked = _forked(request, page)
    except (commands.Refused, Unstorable) as refused:
        messages.error(request, str(refused))
        return _answer(request, page, status=409)
    messages.success(request, f"Run {forked.pk} goes on from step {position} of run {run_id}.")
    return redirect(forked)


def _forked(request: HttpRequest, page: ForkPage) -> Run:
    given = page.form.value() if page.form and page.terms.wants_own_input else None
    terms: commands.Terms = CURRENT if page.terms.cleaned_data["config"] == CURRENT else RECORDED
    by = request.user.get_username()
    return commands.fork(page.run.pk, step=page.step.position, by=by, input=given, config=terms, tags=page.tags.named)


def _input_is_valid(page: ForkPage) -> bool:
    """An input that was typed but not chosen is a slip: nothing is forked before it is chosen or undone."""
    if page.form is None:
        return True
    if page.terms.wants_own_input:
        return page.form.is_valid()
    if not page.form.is_valid() or page.form.value() == _as_it_fits(page.step):
        return True
    page.terms.add_error("own_input", "You changed the input below. Tick this to give it to the step, or undo the change.")
    return False


def _as_it_fits(step: Step) -> Any:
    """The recorded input as the worker's model writes it now."""
    try:
        return commands.check_value(step.worker, Subject.INPUT, step.input)
    except ValidationError:
        return None


def _editor(step: Step, data: Mapping[str, Any] | None) -> SchemaForm | None:
    worker = sdk.find_worker(step.worker)
    if worker is None or isinstance(step.input, Large):
        return None

    def check(value: Any) -> Any:
        return commands.check_value(step.worker, Subject.INPUT, value)

    return SchemaForm(worker.input_model.model_json_schema(), data, check=check, initial=step.input)


def _step(run: Run, position: int) -> Step:
    steps = timeline.steps_of(run.pk, run.steps.filter(position=position))
    if not steps:
        raise Http404(f"Run {run.pk} has no step {position}.")
    return steps[0]


def _answer(request: HttpRequest, page: ForkPage, *, status: int = 200) -> HttpResponse:
    return render(request, "runs/fork.html", {"page": page, "run": page.run, "step": page.step}, status=status)
