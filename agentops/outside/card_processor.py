"""The card processor: freezes and replaces cards, refunds fees, reverses charges, each once per idempotency key."""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from agentops.outside.answer import Answer, refused
from runs.integrations.bank_world import may_have_card, may_have_transaction

CARD_PATH = re.compile(r"^/v1/cards/(?P<card>[^/]+)(?:/(?P<act>freeze|replace))?$")
MONEY_PATHS = {"/v1/refunds": "refunded", "/v1/reversals": "reversed"}


@dataclass
class CardProcessor:
    """It knows the cards and transactions of the sample bank by their numbers, and no others.

    State lives in memory: it is gone when the process ends, and so are its idempotency keys.
    """

    cards: dict[str, str] = field(default_factory=dict)  # card -> active, frozen or replaced
    settled: dict[str, str] = field(default_factory=dict)  # transaction -> refunded or reversed
    effects: dict[str, int] = field(default_factory=dict)  # what was really done, counted
    _answers: dict[str, tuple[dict[str, Any], Answer]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, path: str) -> Answer:
        match = CARD_PATH.match(path)
        if match is None or match["act"]:
            return refused(404, f"There is nothing at {path}.")
        if not may_have_card(match["card"]):
            return _no_card(match["card"])
        return Answer(200, {"card": match["card"], "status": self.cards.get(match["card"], "active")})

    def post(self, path: str, body: dict[str, Any], key: str) -> Answer:
        """Do it, or give the recorded answer when the key has been seen before."""
        if not key:
            return refused(400, "The header Idempotency-Key is missing.")
        asked = {"path": path, **body}
        with self._lock:
            if key not in self._answers:
                answer = self._do(path, body, key)
                if answer.status < 400:  # a refusal had no effect, so the same key may be used again
                    self._answers[key] = (asked, answer)
                return answer
            before, answer = self._answers[key]
        if before != asked:
            return refused(422, f"The idempotency key {key} was used for another request.")
        return Answer(answer.status, answer.body, {"Idempotent-Replayed": "true"})

    def _do(self, path: str, body: dict[str, Any], key: str) -> Answer:
        match = CARD_PATH.match(path)
        if match and not may_have_card(match["card"]):
            return _no_card(match["card"])
        if match and match["act"] == "freeze":
            return self._freeze(match["card"], key)
        if match and match["act"] == "replace":
            return self._replace(match["card"], key)
        if path in MONEY_PATHS:
            return self._settle(body, key, how=MONEY_PATHS[path])
        return refused(404, f"There is nothing at {path}.")

    def _freeze(self, card: str, key: str) -> Answer:
        if self.cards.get(card) == "replaced":
            return refused(409, f"Card {card} was replaced and cannot be frozen.")
        self.cards[card] = "frozen"
        return self._done("frozen", key, card=card, status="frozen")

    def _replace(self, card: str, key: str) -> Answer:
        if self.cards.get(card) == "replaced":
            return refused(409, f"Card {card} was replaced already.")
        self.cards[card] = "replaced"
        return self._done("replaced", key, card=card, status="replaced", new_card=f"{card}9")

    def _settle(self, body: dict[str, Any], key: str, *, how: str) -> Answer:
        transaction, amount_cents = body.get("transaction"), body.get("amount_cents")
        if not isinstance(transaction, str) or not isinstance(amount_cents, int) or amount_cents <= 0:
            return refused(422, "Send a transaction and an amount_cents above 0.")
        if not may_have_transaction(transaction):
            return refused(404, f"There is no transaction {transaction}.")
        if transaction in self.settled:
            return refused(409, f"Transaction {transaction} was {self.settled[transaction]} already.")
        self.settled[transaction] = how
        return self._done(how, key, transaction=transaction, amount_cents=amount_cents, status=how)

    def _done(self, effect: str, key: str, **facts: Any) -> Answer:
        self.effects[effect] = self.effects.get(effect, 0) + 1
        number = hashlib.sha256(key.encode()).hexdigest()[:8].upper()
        return Answer(200, {"reference": f"{effect[:3].upper()}-{number}", **facts})


def _no_card(number: str) -> Answer:
    return refused(404, f"There is no card {number}.")
