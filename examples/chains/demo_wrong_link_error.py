from celery import chain

from chains.tasks import report_end, update_wallet

links = [update_wallet.si(1000035), update_wallet.si(98000002)]
chain(links).apply_async(link_error=report_end.s())
