from django.db import migrations, models

RISK = {
    "blank": True,
    "choices": [
        ("", "by the step: high where it may happen only once or the code says so, else normal"),
        ("low", "low"),
        ("normal", "normal"),
        ("high", "high"),
    ],
    "default": "",
    "help_text": "What is riskier comes first. What the code says is of high risk stays so.",
    "max_length": 10,
}


class Migration(migrations.Migration):
    dependencies = [("runs", "0022_runs_list")]

    operations = [
        migrations.AlterField(model_name=model, name="risk", field=models.CharField(**RISK))
        for model in ("policy", "policyevent")
    ]
