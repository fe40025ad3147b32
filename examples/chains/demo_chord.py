from celery import chord

from chains.tasks import report_end, update_wallet

wallets = [update_wallet.si(98000001), update_wallet.si(98000002)]
try:
    chord(wallets, report_end.si()).delay()
except NotImplementedError as error:
    print(error)
