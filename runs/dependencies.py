"""What a person may do to a dependency: change what is wanted of it."""

from typing import Any

from django.db import transaction
from django.forms import model_to_dict

from runs.models import Dependency
from runs.reliability import terms


def configure(name: str, *, by: str, **changes: Any) -> Dependency:
    """Change what is wanted of it and raise its version; every process hears it within two seconds.

    What changes nothing makes no version. Raises Dependency.DoesNotExist, and django's ValidationError for a value that
    cannot be.
    """
    with transaction.atomic():
        found = Dependency.objects.select_for_update().get(name=name)
        before = model_to_dict(found)
        for field, value in changes.items():
            setattr(found, field, value)
        found.full_clean()
        if model_to_dict(found) != before:
            found.version, found.changed_by = found.version + 1, by
            found.save()
            transaction.on_commit(terms.forget)
    return found
