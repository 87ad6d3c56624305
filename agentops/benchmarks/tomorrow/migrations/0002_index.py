from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("tomorrow", "0001_columns")]

    operations = [
        migrations.RunSQL(
            f"CREATE INDEX CONCURRENTLY tomorrow_{table} ON {table} (tomorrow_count, id)",
            f"DROP INDEX CONCURRENTLY tomorrow_{table}",
        )
        for table in ("runs_run", "runs_event")
    ]
