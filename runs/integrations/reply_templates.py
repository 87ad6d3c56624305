"""The desk's written policy: one template a queue, in templates/card_desk/."""

from functools import cache

from django.conf import settings
from django.template import Context, Engine


def render(queue: str, *, name: str, done: str, amount_cents: int, reference: str) -> str:
    """The reply to a customer whose message is in this queue, saying what was done and nothing else."""
    context = {"name": name, "done": done, "amount": f"{amount_cents / 100:.2f} EUR", "reference": reference}
    # Replies are plain text: "&" stays "&". Whoever shows one on a page escapes it there.
    return _engine().get_template(f"card_desk/{queue}.txt").render(Context(context, autoescape=False)).strip()


@cache
def _engine() -> Engine:
    return Engine(dirs=[str(settings.BASE_DIR / "templates")])
