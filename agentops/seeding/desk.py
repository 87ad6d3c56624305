"""The past of the card desk: real messages of the data it ships with, and what became of them."""

import csv
import json
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from django.conf import settings

from agentops.seeding.story import Story
from runs import requests, sdk
from runs.engine.events import Kind
from runs.integrations import reply_templates

AGENT = "card-desk"
DATA = settings.BASE_DIR / "runs" / "data" / "banking77"
THRESHOLD, LEAST = 0.9, 0.34
REVIEWERS = ("reviewer", "reviewer2", "operator")
PROCESSOR_AWAY = {"kind": "Unavailable", "message": "card-processor answered 503 Service Unavailable.", "trace": ""}
NAMES = (
    "Tomas Novak",
    "Dana Novak",
    "Malik Haddad",
    "Ines Moreau",
    "Piotr Zielinski",
    "Amara Okafor",
    "Lena Fischer",
    "Joao Reis",
)
NOT_THE_CUSTOMER = "This was not the customer: nothing may be done to the card."


@dataclass(frozen=True, slots=True)
class Message:
    text: str
    queue: str


@cache
def messages() -> tuple[Message, ...]:
    """Every message of the data, with the queue that it belongs in."""
    queues = json.loads((DATA / "queues.json").read_text())
    queue_of = {intent: queue for queue, about in queues.items() for intent in about["intents"]}
    found = []
    for part in ("train.csv", "test.csv"):
        with (DATA / part).open(newline="") as file:
            found += [Message(" ".join(row["text"].split()), queue_of[row["category"]]) for row in csv.DictReader(file)]
    return tuple(found)


@cache
def question(worker: str, about: str, cause: str) -> dict[str, Any]:
    """What every question of this worker says; a person may answer it as one of today's."""
    found = sdk.find_worker(worker)
    schema = (found.input_model.model_json_schema() if about == "input" else found.output.json_schema()) if found else {}
    allowed = ["approve", "edit", "reject", "take_over" if about == "input" else "send_back"]
    return {"cause": cause, "subject": about, "schema": schema, "allowed": allowed, "risk": "normal", "effect": "none"}


@cache
def terms() -> dict[str, Any]:
    """The configuration in force, as a run keeps it."""
    return requests.in_force(requests.configuration(AGENT))


@dataclass(frozen=True, slots=True)
class Desk:
    """One message on its way through the desk. `trouble`: how likely the card processor is away; `open_`: nobody has answered."""

    story: Story
    message: Message
    trouble: float
    open_: bool

    def tell(self) -> None:
        text, story = self.message.text, self.story
        given, by = {"message": text, "customer": None}, (self._chance(0.7) and "operator") or "admin"
        line = text if len(text) <= 160 else text[:159] + "…"
        said = {"agent": AGENT, "agent_version": "1", "input": given, "summary": line, "config": terms()}
        story.requested(said, by=by)
        queue = self._classified()
        if queue is None:
            return
        customer, name = f"C-{self._random.randint(1001, 1200)}", self._random.choice(NAMES)
        account = {"customer": customer, "name": name, "cards": [], "transactions": []}
        story.begins("look_up", "card_desk.look_up", "Look up the customer", {"customer": customer})
        story.gives(account, seconds=self._random.lognormvariate(-2.4, 0.6))
        story.begins("decide", "card_desk.decide", "Decide what to do", {"queue": queue, "message": text, "account": account})
        freezes = queue == "fraud"
        plan = {"action": "freeze_card" if freezes else "explain", "why": "The desk's text for this queue answers it."}
        story.gives(plan | {"card": "", "transaction": "", "amount_cents": 0}, seconds=0.001)
        done = self._frozen(customer) if freezes else {"deed": "nothing", "reference": "", "amount_cents": 0}
        if done is not None:
            self._answered(queue, customer, name, done)

    def _classified(self) -> str | None:
        """The queue; None where a person is asked still, or somebody ended the run."""
        text, queue, story = self.message.text, self.message.queue, self.story
        story.begins("classify", "card_desk.classify", "Classify the message", {"message": text})
        sure = not self.open_ and self._chance(0.9)
        confidence = round(self._random.uniform(THRESHOLD, 0.999) if sure else self._random.uniform(LEAST, 0.895), 6)
        judged = {"confidence": confidence, "threshold": THRESHOLD, "source": "classifier 1", "alternatives": {queue: confidence}}
        if sure:
            story.gives({"queue": queue}, seconds=self._random.lognormvariate(-3.5, 0.7), why="", **judged)
            return queue
        asked = question("card_desk.classify", "output", "low_confidence") | judged | {"judged": True}
        why = f"Confidence {confidence:.2f} is under the threshold of {THRESHOLD:.2f}."
        story.waits(0.03)
        story.asks(asked | {"proposal": {"queue": queue}, "why": why})
        if self.open_:
            return None
        if self._chance(0.06):
            self._cancelled()
            return None
        kind = "approve" if self._chance(0.83) else "edit"
        chosen = queue if kind == "approve" else "other"
        story.decided(kind, {"queue": chosen}, by=self._reviewer(), after_seconds=self._patience())
        return chosen

    def _frozen(self, customer: str) -> dict[str, Any] | None:
        """What was done to the card after a person allowed it; None where the run failed."""
        story, given = self.story, {"customer": customer, "card": f"K-{customer[2:]}1"}
        about = ("freeze_card", "card_desk.freeze_card", "Freeze the card")
        story.begins(*about, given, effect="idempotent", runs=False)
        asked = question("card_desk.freeze_card", "input", "gated")
        story.asks(asked | {"proposal": given, "why": "Freezing a card stops every payment with it."})
        if self._chance(0.12):
            story.decided("reject", None, by=self._reviewer(), after_seconds=self._patience(), reason=NOT_THE_CUSTOMER)
            return {"deed": "left_to_a_colleague", "reference": "", "amount_cents": 0}
        story.decided("approve", given, by=self._reviewer(), after_seconds=self._patience())
        story.say(Kind.ATTEMPT_STARTED, {"attempt": 1, "remark": ""}, story.steps)
        for attempt in (1, 2, 3):
            if not self._chance(self.trouble):
                break
            story.waits(self._random.uniform(0.1, 2.0))
            story.fails(PROCESSOR_AWAY, attempt=attempt, wait_seconds=2.0**attempt if attempt < 3 else None)
        else:
            error = {"kind": "RejectedError", "message": "A person gave the step up: the card processor was away.", "trace": ""}
            story.asks(
                question("card_desk.freeze_card", "output", "failed") | {"proposal": None, "why": PROCESSOR_AWAY["message"]}
            )
            story.decided("reject", None, by=self._reviewer(), after_seconds=self._patience(), reason="It is done by hand.")
            story.say(Kind.RUN_FAILED, {"error": error}, story.steps)
            return None
        receipt = {"deed": "card_frozen", "reference": f"REF-{self._random.randint(10**7, 10**8 - 1)}", "amount_cents": 0}
        story.gives(receipt, seconds=self._random.lognormvariate(-1.4, 0.5))
        return receipt

    def _answered(self, queue: str, customer: str, name: str, done: dict[str, Any]) -> None:
        reply = reply_text(queue, name, done["deed"], done["reference"])
        drafted = {"queue": queue, "name": name, "message": self.message.text, "done": done}
        self.story.begins("draft", "card_desk.draft", "Draft the reply", drafted)
        self.story.gives({"reply": reply}, seconds=0.002)
        sent = {"customer": customer, "queue": queue, "done": done, "reply": reply}
        self.story.begins("queue_reply", "card_desk.queue_reply", "Queue the reply", sent, effect="idempotent")
        self.story.gives({"key": f"{customer}:queue_reply"}, seconds=self._random.lognormvariate(-3.0, 0.5))
        answer = {"queue": queue, "action": done["deed"], "reference": done["reference"], "reply": reply}
        self.story.ends(Kind.RUN_SUCCEEDED, {"output": answer})

    def _cancelled(self) -> None:
        self.story.waits(self._patience())
        said = {"reason": "The customer has called meanwhile."}
        self.story.say(Kind.RUN_CANCEL_REQUESTED, said, actor="operator")
        self.story.ends(Kind.RUN_CANCELLED, said, actor="operator")

    @property
    def _random(self) -> Random:
        return self.story.random

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _reviewer(self) -> str:
        return self._random.choice(REVIEWERS)

    def _patience(self) -> float:
        """Seconds until a person has answered: minutes as a rule, hours now and then."""
        return min(self._random.lognormvariate(5.2, 1.3), 86_400.0)


@cache
def reply_text(queue: str, name: str, deed: str, reference: str) -> str:
    return reply_templates.render(queue, name=name, done=deed, amount_cents=0, reference=reference)
