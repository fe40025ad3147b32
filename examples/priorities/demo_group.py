from celery import group

from priorities.tasks import update_structure

signatures = [
    update_structure.si(1035466617946),
    update_structure.si(1038457641673).set(priority=2),
]
group(signatures).apply_async(priority=7)
