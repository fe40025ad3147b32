from priorities.tasks import update_members

for corporation_id, priority in ((98000001, None), (98000002, "high")):
    update_members.apply_async(args=[corporation_id], priority=priority)
