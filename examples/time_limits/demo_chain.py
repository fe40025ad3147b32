from celery import chain, current_app

from time_limits.tasks import update_member

last = chain(update_member.si(number) for number in (2112000001, 2112000002, 2112000003)).delay()
current_app.control.revoke(last.parent.id)
