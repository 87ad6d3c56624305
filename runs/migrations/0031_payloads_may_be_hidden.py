"""Who may not see payloads; whoever might look at runs or reviews until now may see them, so that nothing changes."""

import django.db.models.deletion
import django.db.models.functions.datetime
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

LOOKS = ("view_run", "view_review")


def give(apps, schema_editor):
    """Of a new installation there is nobody yet: the groups are made after the last migration (agentops/people.py)."""
    types, permissions = apps.get_model("contenttypes", "ContentType"), apps.get_model("auth", "Permission")
    looks = permissions.objects.filter(codename__in=LOOKS, content_type__app_label__in=("runs", "reviews"))
    for model, field in (("Group", "permissions"), ("User", "user_permissions")):
        holders = apps.get_model("auth", model).objects.filter(**{f"{field}__in": looks}).distinct()
        for holder in holders:
            payload, _ = types.objects.get_or_create(app_label="runs", model="payload")
            named = {"name": "Can view payload"}
            sees, _ = permissions.objects.get_or_create(content_type=payload, codename="view_payload", defaults=named)
            getattr(holder, field).add(sees)


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0030_words"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="payload",
            options={"permissions": [("reveal_payload", "May reveal the payloads of one run, with a reason")]},
        ),
        migrations.CreateModel(
            name="Reveal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("by", models.CharField(max_length=150)),
                ("reason", models.CharField(max_length=300)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name="reveals", to="runs.run"
                    ),
                ),
            ],
            options={
                "ordering": ["-at", "-pk"],
                "indexes": [models.Index(fields=["by", "-at"], name="reveal_by")],
            },
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="reveal",
            trigger=pgtrigger.compiler.Trigger(
                name="append_only",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update or delete rows from % table', TG_TABLE_NAME;",
                    hash="493e2a79be3f3db3fb8f608352e9dabb79daf44a",
                    operation="UPDATE OR DELETE",
                    pgid="pgtrigger_append_only_7d246",
                    table="runs_reveal",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="reveal",
            trigger=pgtrigger.compiler.Trigger(
                name="no_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="RAISE EXCEPTION '% is history: TRUNCATE is refused', TG_TABLE_NAME;",
                    hash="23265e429776292bda198f0e8c82003eb9f4b7b7",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_no_truncate_c8831",
                    table="runs_reveal",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.RunPython(give, migrations.RunPython.noop),
    ]
