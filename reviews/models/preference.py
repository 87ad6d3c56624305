"""How a reviewer wants the inbox to behave."""

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models


class Preference(models.Model):
    """Of one account; where there is no row, everything is as it comes."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+")
    single_keys = models.BooleanField(default=True, help_text="One letter alone does something; off for people who dictate.")

    def __str__(self) -> str:
        return f"Preferences of {self.user}"


def single_keys(user: User) -> bool:
    """Whether the letters of the inbox do something for this person."""
    return not Preference.objects.filter(user=user, single_keys=False).exists()
