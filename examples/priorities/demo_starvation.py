from priorities.tasks import follow_fleet, update_structure

for structure_id in range(1035466617941, 1035466617946):
    update_structure.apply_async(args=[structure_id], priority=9)
for fleet_id in range(1108600000001, 1108600000013):
    follow_fleet.apply_async(args=[fleet_id, 3], priority=1)
