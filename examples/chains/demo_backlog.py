from celery import chain

from chains.tasks import report_end, update_wallet

chain(update_wallet.si(98000001), report_end.si()).delay()
for corporation_id in (98000002, 98000003, 98000004):
    update_wallet.delay(corporation_id)
