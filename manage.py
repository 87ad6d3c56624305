#!/usr/bin/env python
"""Runs Django's commands, with PostgreSQL and Redis of the checkout's own where the environment names none."""

import os
import sys

UNDEFINED_TABLE = "42P01"  # PostgreSQL's code


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentops.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
        from django.db.utils import ProgrammingError

        from agentops.services import ServicesFailure, ensure_env
    except ImportError as error:
        sys.exit(f"{error}. Use the project's environment: `make run`, or .venv/bin/python manage.py.")
    try:
        ensure_env()
        execute_from_command_line(sys.argv)
    except (ServicesFailure, ImproperlyConfigured) as failure:  # a server, a setting, or the declaration of an agent
        sys.exit(f"agentops: {failure}")
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", "") != UNDEFINED_TABLE:
            raise
        sys.exit("agentops: this database has no tables yet. Run `make run` once, or `manage.py migrate`.")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
