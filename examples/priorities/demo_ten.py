from priorities.tasks import update_structure

for priority in (5, 9, 0, 3, 7, 1, 8, 2, 6, 4):
    update_structure.apply_async(args=[1035466617940 + priority], priority=priority)
