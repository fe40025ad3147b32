from celery import chain

from chains.tasks import report_end, update_wallet

links = [update_wallet.si(number) for number in (98000001, 1000035)]
chain(links).apply_async(link_error=report_end.s())
