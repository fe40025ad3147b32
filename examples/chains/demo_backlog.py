from celery import chain

from chains.tasks import update_wallet

chain(update_wallet.si(number) for number in (98000001, 98000002, 98000003)).delay()
chain(update_wallet.si(number) for number in (98000011, 98000012, 98000013)).delay()
