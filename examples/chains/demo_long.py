from celery import chain

from chains.tasks import update_wallet

chain(update_wallet.si(corporation_id) for corporation_id in range(98000000, 98001000)).delay()
