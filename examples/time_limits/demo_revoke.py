from celery import current_app

from time_limits.tasks import update_member

result = update_member.apply_async(args=[2112000001], countdown=1)
current_app.control.revoke(result.id)
