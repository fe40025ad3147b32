from celery import chain, group

from chains.tasks import report_end, update_wallet

chain(group([update_wallet.si(98000001)]), report_end.si()).delay()
