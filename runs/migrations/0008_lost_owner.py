from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0007_top_level_runs")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="lost_owner",
            field=models.CharField(blank=True, default="", help_text="From whom it was last taken over.", max_length=120),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("lost_owner", ""), _negated=True), fields=["lost_owner"], name="run_lost_owner"
            ),
        ),
    ]
