"""The composition root as an app: commands, checks and the chrome of the pages."""

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate


class AgentopsConfig(AppConfig):
    name = "agentops"

    def ready(self) -> None:
        """Refuse to start unsafely in production, whichever process this is."""
        from agentops import checks

        if wrong := checks.production_is_safe(None):
            raise ImproperlyConfigured(" ".join(str(error.msg) for error in wrong))
        post_migrate.connect(make_groups)
        if settings.OTEL_EXPORTER_OTLP_ENDPOINT:
            from agentops import tracing  # the exporter takes a moment to import

            tracing.start()


def make_groups(app_config: AppConfig, **kwargs: object) -> None:
    """After the last app's migrations, when every permission exists, make the groups."""
    if app_config is list(apps.get_app_configs())[-1]:
        from agentops import people

        people.ensure_groups()
