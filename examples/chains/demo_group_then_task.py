from celery import chain, group

from chains.tasks import report_end, update_wallet

first, *pair = [update_wallet.si(number) for number in (98000001, 98000002, 98000003)]
last = report_end.si()
for links in ([group(pair), last], [first, group(pair), last]):
    try:
        chain(links).delay()
    except NotImplementedError as error:
        print(str(error).splitlines()[0])
