from celery import chain

from chains.tasks import update_wallet

chain(update_wallet.s(number) for number in (98000001, 98000002)).delay()
