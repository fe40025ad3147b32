from celery import chain

from chains.tasks import note_reason, update_wallet

links = [update_wallet.si(number) for number in (98000001, 1000035)]
chain(links).apply_async(link_error=note_reason.s())
