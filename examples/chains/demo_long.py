from celery import chain

from chains.tasks import update_wallet

chain(update_wallet.si(number) for number in range(98000000, 98001000)).delay()
