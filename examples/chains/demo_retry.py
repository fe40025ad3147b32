from celery import chain

from chains.tasks import note_failure, report_end, update_contracts, update_wallet

links = [update_wallet.si(98000001), update_contracts.si(98000002), report_end.si()]
chain(links).apply_async(link_error=note_failure.s())
