from priorities.tasks import update_assets

for character_id in range(90000001, 90000021):
    update_assets.apply_async(args=[character_id], priority=1)
