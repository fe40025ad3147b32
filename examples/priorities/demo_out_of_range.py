from priorities.tasks import update_members

for corporation_id, priority in ((98000001, -1), (98000002, 10), (98000003, 100)):
    update_members.apply_async(args=[corporation_id], priority=priority)
