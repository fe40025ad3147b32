from celery import chain, group

from chains.tasks import report_end, update_wallet

pair = group(update_wallet.si(98000001), update_wallet.si(98000002))
for canvas in (
    chain(pair, report_end.si()),
    chain(update_wallet.si(98000003), pair, report_end.si()),
):
    try:
        canvas.delay()
    except NotImplementedError as error:
        print(str(error).splitlines()[0])
