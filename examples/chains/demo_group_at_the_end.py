from celery import chain, group

from chains.tasks import update_corporation, update_wallet

together = group(update_corporation.si(98000001), update_corporation.si(98000002))
chain(update_wallet.si(98000001), together).delay()
