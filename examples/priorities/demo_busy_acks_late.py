from priorities.tasks import update_assets_acks_late

for character_id in range(90000001, 90000009):
    update_assets_acks_late.apply_async(args=[character_id], priority=9)
