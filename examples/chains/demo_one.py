from celery import chain

from chains.tasks import update_wallet

chain([update_wallet.si(98000001)]).delay()
