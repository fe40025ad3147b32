from celery import chain, group

from chains.tasks import update_corporation

links = [update_corporation.si(number) for number in range(98000001, 98000007)]
group(chain(links[lane::2]) for lane in range(2)).delay()
