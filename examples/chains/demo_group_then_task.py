from celery import chain, group

from chains.tasks import report_end, update_wallet

first, *pair = [update_wallet.si(number) for number in (98000001, 98000002, 98000003)]
for links in ([group(pair), report_end.si()], [first, group(pair), report_end.si()]):
    try:
        chain(links).delay()
    except NotImplementedError as error:
        print(str(error).splitlines()[0])
