from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Loss",
            fields=[
                ("killmail_id", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("corporation_id", models.PositiveIntegerField()),
                ("value", models.BigIntegerField()),
                ("paid", models.BooleanField(default=False)),
            ],
        ),
        migrations.CreateModel(
            name="Payment",
            fields=[
                ("id", models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("killmail_id", models.PositiveIntegerField(unique=True)),
            ],
        ),
        migrations.CreateModel(
            name="Wallet",
            fields=[
                ("corporation_id", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("balance", models.BigIntegerField()),
            ],
        ),
    ]
