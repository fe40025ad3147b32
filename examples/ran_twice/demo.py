from ran_twice.models import Loss, Wallet
from ran_twice.tasks import pay

Wallet.objects.update_or_create(corporation_id=98000001, defaults={"balance": 900_000_000})
Loss.objects.update_or_create(
    killmail_id=123456789,
    defaults={"corporation_id": 98000001, "value": 250_000_000, "paid": False},
)
for _ in range(2):
    pay.delay(123456789)
