from priorities.tasks import update_members

for corporation_id, priority in ((98000001, "3"), (98000002, 3.9)):
    update_members.apply_async(args=[corporation_id], priority=priority)
