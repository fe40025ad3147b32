from queue_once.tasks import update_structures

for force in (False, True):
    result = update_structures.delay(98000001, force=force)
    print(f"force={force}:", "accepted" if result.id else "rejected")
