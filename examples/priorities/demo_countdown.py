from priorities.tasks import update_structure

update_structure.apply_async(args=[1035466617946], priority=9, countdown=0.45)
