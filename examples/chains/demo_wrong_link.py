from celery import chain

from chains.tasks import update_wallet

chain(update_wallet.s(98000001), update_wallet.s(98000002)).delay()
