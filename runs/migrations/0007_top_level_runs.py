from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0006_dependencies")]

    operations = [
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("parent__isnull", True)), fields=["-created_at", "-id"], name="run_top_newest"
            ),
        ),
    ]
