from retries.stand_in import Server
from retries.tasks import update_corporation

esi = Server(502, 429, 200)
update_corporation.delay(98000001, esi.url)
