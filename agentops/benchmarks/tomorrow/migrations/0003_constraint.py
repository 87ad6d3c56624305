from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tomorrow", "0002_index")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE runs_event ADD CONSTRAINT tomorrow_counted CHECK (tomorrow_count >= 0) NOT VALID",
            "ALTER TABLE runs_event DROP CONSTRAINT tomorrow_counted",
        ),
    ]
