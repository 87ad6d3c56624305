"""Finds the agents when the process starts."""

import importlib
import pkgutil

from django.apps import AppConfig, apps
from django.utils.module_loading import autodiscover_modules


class RunsConfig(AppConfig):
    name = "runs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the `agents` module or package of every app; a bad declaration ends the start with its sentence."""
        autodiscover_modules("agents")
        for app in apps.get_app_configs():
            package = getattr(app.module, "agents", None)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{app.name}.agents.{module.name}")
