"""Built-in rules were given other names; those that nobody has named since get them too."""

from typing import Any

from django.db import migrations
from django.db.models import F

RENAMED = {
    "reviews-late": ("A review is past due", "A review is overdue"),
    "quarantine": ("A step is in quarantine", "A step ended its process"),
    "verification": ("The verification of a run failed", "A verification failed"),
}


def rename(apps: Any, schema_editor: Any) -> None:
    rules = apps.get_model("runs", "AlertRule").objects
    for built_in, (before, after) in RENAMED.items():
        if not rules.filter(name=after).exists():  # each name is there once
            rules.filter(built_in=built_in, name=before).update(name=after, version=F("version") + 1, changed_by="")


class Migration(migrations.Migration):
    dependencies = [("runs", "0036_tags_are_found")]

    operations = [migrations.RunPython(rename, migrations.RunPython.noop)]
