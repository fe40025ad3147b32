from celery import chain

from chains.tasks import fetch_structures, update_wallet

chain(fetch_structures.si(98000001), update_wallet.si(98000001)).delay()
