from locks.tasks import update_structures

update_structures.apply_async([98000002], countdown=1)
for corporation_id in (98000001, 98000002, 98000003):
    result = update_structures.apply_async([corporation_id], once={"graceful": True})
    print(corporation_id, "started" if result.id else "skipped")
