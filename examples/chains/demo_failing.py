from celery import chain

from chains.tasks import note_failure, update_wallet

links = [update_wallet.si(number) for number in (98000001, 1000035, 98000003)]
chain(links).apply_async(link_error=note_failure.s())
