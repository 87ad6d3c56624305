"""Listens to what runs say."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    name = "reviews"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from reviews import confirmation, inbox, retention, sweep  # noqa: F401 - connect their receivers
