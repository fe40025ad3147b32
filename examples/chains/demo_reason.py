from celery import chain

from chains.tasks import note_reason, update_wallet

chain(update_wallet.si(1000035), update_wallet.si(98000002)).apply_async(link_error=note_reason.s())
