from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Roster",
            fields=[
                ("corporation_id", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("members", models.PositiveIntegerField(default=0)),
            ],
        ),
    ]
