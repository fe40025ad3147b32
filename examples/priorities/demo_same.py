from priorities.tasks import update_structure

for number in range(8):
    update_structure.apply_async(args=[1035466617940 + number], priority=8)
