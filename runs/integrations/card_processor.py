"""The card processor's HTTP API: freeze and replace cards, refund fees, reverse charges."""

import ssl
from functools import lru_cache
from urllib.parse import quote

import httpx2
from django.conf import settings
from pydantic import BaseModel

from runs.integrations import exchange
from runs.reliability import guard

PROCESSOR = guard.declare("card-processor", kind="api")


class Receipt(BaseModel):
    """What the processor did, under its own reference."""

    reference: str
    status: str


def freeze_card(card: str, *, key: str) -> Receipt:
    return _post(f"/v1/cards/{quote(card, safe='')}/freeze", {}, key=key)


def replace_card(card: str, *, key: str) -> Receipt:
    """Block the card for good and send a new one."""
    return _post(f"/v1/cards/{quote(card, safe='')}/replace", {}, key=key)


def refund_fee(transaction: str, *, amount_cents: int, key: str) -> Receipt:
    return _post("/v1/refunds", {"transaction": transaction, "amount_cents": amount_cents}, key=key)


def reverse_charge(transaction: str, *, amount_cents: int, key: str) -> Receipt:
    return _post("/v1/reversals", {"transaction": transaction, "amount_cents": amount_cents}, key=key)


def _post(path: str, body: dict[str, str | int], *, key: str) -> Receipt:
    """The key makes a repeated request one effect, so that whoever retries need not know what became of the last."""
    certificates = _certificates()  # before guard counts the call: from then on it should be on its way
    return guard.call(PROCESSOR, lambda: _sent(path, body, key, certificates))


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a call."""
    return httpx2.create_ssl_context(trust_env=False)


def _sent(path: str, body: dict[str, str | int], key: str, certificates: ssl.SSLContext) -> Receipt:
    # One connection a call and no retries: retrying is decided in one place. No proxy either: the address is ours.
    terms = guard.terms()
    timeout = httpx2.Timeout(terms.read_timeout_seconds, connect=terms.connect_timeout_seconds)
    at = settings.CARD_PROCESSOR_URL
    with httpx2.Client(base_url=at, timeout=timeout, trust_env=False, verify=certificates) as client:
        response = exchange.post(client, path, own_headers={"Idempotency-Key": key}, json=body)
    if not response.is_success:
        message = f"{response.status_code} {response.reason_phrase}: {_detail(response)}"
        raise httpx2.HTTPStatusError(message, request=response.request, response=response)
    return Receipt.model_validate(response.json())


def _detail(response: httpx2.Response) -> str:
    """The processor's own sentence, or the beginning of whatever it sent."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
