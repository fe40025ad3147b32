from vanished.tasks import update_structures

update_structures.apply_async([98000001], expires=600, once={"timeout": 600})
