"""The tags of a run that is to begin, in one field."""

from typing import Any

from django import forms

from runs.engine.tags import LONGEST, MOST, checked


class TagsForm(forms.Form):
    """Beside a SchemaForm. `had`: the tags that are in it at first, and stay where nothing is sent in its place."""

    tags = forms.CharField(
        required=False,
        max_length=2 * MOST * LONGEST,
        help_text="With commas between, such as vip, region:eu. By them the run is found in the list; they stay as they are.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )

    def __init__(self, data: Any = None, *, had: list[str] | None = None) -> None:
        super().__init__(data, initial={"tags": ", ".join(had or [])})
        self.had = had or []

    def clean_tags(self) -> list[str]:
        if "tags" not in self.data:
            return self.had
        try:
            return checked(self.cleaned_data["tags"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    @property
    def named(self) -> list[str]:
        """Of a valid form."""
        found: list[str] = self.cleaned_data["tags"]
        return found
