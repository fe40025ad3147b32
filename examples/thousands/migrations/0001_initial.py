from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Member",
            fields=[
                ("character_id", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("asked_at", models.DateTimeField(db_index=True, null=True)),
                ("updated_at", models.DateTimeField(null=True)),
            ],
        ),
    ]
