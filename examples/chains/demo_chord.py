from celery import chord

from chains.tasks import report_end, update_wallet

try:
    chord([update_wallet.si(98000001), update_wallet.si(98000002)], report_end.si()).delay()
except NotImplementedError as error:
    print(error)
