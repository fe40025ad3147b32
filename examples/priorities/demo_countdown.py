from priorities.tasks import update_assets, update_structure

update_structure.apply_async(args=[1035466617946], priority=9, countdown=0.45)
for character_id in range(90000001, 90000021):
    update_assets.apply_async(args=[character_id], priority=1)
