from priorities.tasks import update_members

for number, priority in enumerate((None, "high")):
    update_members.apply_async(args=[98000001 + number], priority=priority)
