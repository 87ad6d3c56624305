from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("reviews", "0016_old_deadlines")]

    operations = [
        migrations.AlterField(
            model_name="review",
            name="same",
            field=models.CharField(
                max_length=64, default="", help_text="Equal for identical questions: worker, subject, input, proposal."
            ),
        ),
    ]
