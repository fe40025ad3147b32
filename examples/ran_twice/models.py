from django.db import models


class Wallet(models.Model):
    """What a corporation has to pay with."""

    corporation_id = models.PositiveIntegerField(primary_key=True)
    balance = models.BigIntegerField()


class Loss(models.Model):
    """A lost ship, which the corporation pays for."""

    killmail_id = models.PositiveIntegerField(primary_key=True)
    corporation_id = models.PositiveIntegerField()
    value = models.BigIntegerField()
    paid = models.BooleanField(default=False)

    def withdraw(self):
        """Take the value from the wallet of the corporation."""
        wallets = Wallet.objects.filter(corporation_id=self.corporation_id)
        wallets.update(balance=models.F("balance") - self.value)


class Payment(models.Model):
    """A loss that was paid for: it can't be twice."""

    killmail_id = models.PositiveIntegerField(unique=True)
