"""Finds the agents when the process starts."""

import importlib
import pkgutil
import traceback
from types import ModuleType

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models.signals import post_migrate
from django.utils.module_loading import module_has_submodule


class RunsConfig(AppConfig):
    name = "runs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the `agents` module or package of every app; one that cannot be loaded ends the start with a sentence."""
        for app in apps.get_app_configs():
            if module_has_submodule(app.module, "agents"):
                package = _loaded(app, f"{app.name}.agents")
                for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                    _loaded(app, f"{package.__name__}.{module.name}")
        from runs import bulk  # noqa: F401 - its job, and what it looks for at each sweep
        from runs.models import content

        content.declare_titles(_titles)
        post_migrate.connect(_make_rules, sender=self)


def _titles() -> set[str]:
    """Of steps, as code declares them; that of a question may be made while its run goes."""
    from runs import sdk

    of_workers = {worker.title for worker in sdk.WORKERS.values() if not worker.asks}
    return of_workers | {f"Start {agent.title}" for agent in sdk.AGENTS.values()}


def _make_rules(**kwargs: object) -> None:
    """The alert rules that ship, where a migration back has not removed their table."""
    from runs.alerts import rules
    from runs.models import AlertRule

    if AlertRule._meta.db_table in connection.introspection.table_names():
        rules.ensure_built_in()


def _loaded(app: AppConfig, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImproperlyConfigured:  # it is a sentence already
        raise
    except Exception as error:
        file, line = _place(error, within=app.path)
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        what_to_do = "Install that module, or correct the line" if isinstance(error, ModuleNotFoundError) else "Correct the line"
        or_else = f", or take {app.name} out of AGENT_APPS" if app.name in settings.AGENT_APPS else ""
        told = f"The agents of {app.name} cannot be loaded: {file}, line {line}: {type(error).__name__}: {said}."
        raise ImproperlyConfigured(f"{told} {what_to_do}{or_else}, then start again.") from error


def _place(error: Exception, *, within: str) -> tuple[str, int]:
    """File and line of the mistake: the last place in the app's own files."""
    if isinstance(error, SyntaxError):
        return error.filename or within, error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(within)] or frames
    return own[-1].filename, own[-1].lineno or 0
