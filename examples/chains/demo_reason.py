from celery import chain

from chains.tasks import note_reason, update_wallet

links = [update_wallet.si(1000035), update_wallet.si(98000002)]
chain(links).apply_async(link_error=note_reason.s())
