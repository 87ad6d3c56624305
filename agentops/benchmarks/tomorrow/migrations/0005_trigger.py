from django.db import migrations

MAKE = """
CREATE FUNCTION tomorrow_counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tomorrow_count = 1; RETURN NEW; END $$;
CREATE TRIGGER tomorrow_counts BEFORE INSERT ON runs_event FOR EACH ROW EXECUTE FUNCTION tomorrow_counts();
"""


class Migration(migrations.Migration):
    dependencies = [("tomorrow", "0004_validated")]

    operations = [
        migrations.RunSQL(MAKE, "DROP TRIGGER tomorrow_counts ON runs_event; DROP FUNCTION tomorrow_counts();"),
    ]
