from retries.stand_in import Server
from retries.tasks import update_wallet

esi = Server((429, {"Retry-After": "1"}), 200)
update_wallet.delay(98000001, esi.url)
