from celery import chain

from chains.tasks import report_end, update_wallet

chain(update_wallet.si(1000035), update_wallet.si(98000002)).apply_async(link_error=report_end.s())
