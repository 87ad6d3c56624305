"""How what was measured is said on a page."""

from django import template

from runs.alerts.measures import Measure

register = template.Library()


@register.filter
def said(measure: Measure, value: float | None) -> str:
    """The value in the unit of its measure."""
    return measure.said(value)
