"""What a call of a model costs, in CURRENCY: as MODEL_PRICES says, else as genai-prices knows it (in USD)."""

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from django.conf import settings

MILLION = 1_000_000
KNOWN_IN = "USD"  # what genai-prices counts in


def cost(model: str, tokens_in: int, tokens_out: int) -> Decimal | None:
    """None where nobody knows the price: then budgets of money do not hold for this model."""
    own = _own(settings.MODEL_PRICES).get(model)
    if own:
        return (own[0] * tokens_in + own[1] * tokens_out) / MILLION
    return (
        _known(model, tokens_in, tokens_out) if settings.CURRENCY == KNOWN_IN and not settings.AGENTOPS_MODEL_BASE_URL else None
    )


def complaint() -> str:
    """What is wrong with MODEL_PRICES, or ""."""
    try:
        _own(settings.MODEL_PRICES)
    except ValueError as error:
        return str(error)
    return ""


@lru_cache(maxsize=4)
def _own(text: str) -> dict[str, tuple[Decimal, Decimal]]:
    """Model -> price of a million tokens in, and out."""
    pairs = (one.strip().rpartition("=") for one in text.split(",") if one.strip())
    return {model.strip(): _prices(text, model, prices) for model, _, prices in pairs}


def _prices(text: str, model: str, prices: str) -> tuple[Decimal, Decimal]:
    try:
        one, other = (Decimal(number.strip()) for number in prices.split("/"))
    except (InvalidOperation, ValueError):
        one = other = Decimal(-1)
    if not (model and one.is_finite() and other.is_finite() and min(one, other) >= 0):
        raise ValueError(f"MODEL_PRICES is {text!r}; write model=in/out for a million tokens, as in openai:gpt-5=1.25/10.")
    return one, other


def _known(model: str, tokens_in: int, tokens_out: int) -> Decimal | None:
    # Imported here: it takes half a second, and a process that only serves pages never needs it.
    from genai_prices import Usage, calc_price

    provider, _, name = model.rpartition(":")
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    for one in (provider, provider.partition("-")[0]):  # "openai-responses" is a way to reach "openai"
        with suppress(LookupError):
            return calc_price(usage, name, provider_id=one or None).total_price
    return None
