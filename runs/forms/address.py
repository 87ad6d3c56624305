"""The address of a channel in a form: it is a secret, so it can be replaced, and is never shown."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from runs.integrations import notices as outside


class AddressForm(forms.ModelForm):  # type: ignore[type-arg]
    """For a row with a `url`."""

    examples = outside.EXAMPLES
    url = forms.CharField(label="Address", required=False, widget=forms.PasswordInput(attrs={"size": 80, "autocomplete": "off"}))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        kept = "It is kept and not shown again; leave it empty to keep the present one."
        self.fields["url"].help_text = f"Such as {self.examples}. {kept}"

    def clean_url(self) -> str:
        url = self.cleaned_data["url"].strip() or str(self.instance.url)
        if not url:
            raise ValidationError(f"Give the address of the channel, such as {self.examples}.")
        self.check(url)
        return url

    def check(self, url: str) -> None:
        """Raises ValidationError."""
        try:
            outside.validate(url)
        except outside.NoSuchChannel as error:
            raise ValidationError(str(error)) from error
