"""The rows of the inbox."""

from functools import lru_cache

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from reviews.listing import Line, Row

register = template.Library()
KEPT = 4000  # rows, of a few kilobytes each


@register.simple_tag(takes_context=True)
def review_row(context: template.Context, row: Row) -> SafeString:
    """With `query` (of the filters), `may_decide` and `selected` of the page."""
    line = row.line
    return _written(line, context["query"], bool(context["may_decide"]), str(context.get("selected")) == line.number)


@lru_cache(maxsize=KEPT)
def _written(row: Line, query: str, may_decide: bool, is_selected: bool) -> SafeString:
    shown = {"row": row, "query": query, "may_decide": may_decide, "is_selected": is_selected}
    return SafeString(render_to_string("reviews/_row.html", shown))
