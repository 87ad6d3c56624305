from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tomorrow", "0003_constraint")]

    operations = [migrations.RunSQL("ALTER TABLE runs_event VALIDATE CONSTRAINT tomorrow_counted", migrations.RunSQL.noop)]
