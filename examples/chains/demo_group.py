from celery import group

from chains.tasks import update_corporation

group(update_corporation.si(number) for number in range(98000001, 98000007)).delay()
