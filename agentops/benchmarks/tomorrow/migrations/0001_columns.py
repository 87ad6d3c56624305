from django.db import migrations

TABLES = ("runs_run", "runs_step", "runs_event", "reviews_review")


class Migration(migrations.Migration):
    operations = [
        migrations.RunSQL(
            f"ALTER TABLE {table} ADD COLUMN tomorrow_note text NULL, ADD COLUMN tomorrow_count integer NOT NULL DEFAULT 0",
            f"ALTER TABLE {table} DROP COLUMN tomorrow_note, DROP COLUMN tomorrow_count",
        )
        for table in TABLES
    ]
