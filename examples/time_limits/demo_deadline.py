from time_limits.tasks import update_structures

update_structures.delay(list(range(1035466617940, 1035466617960)), seconds=0.1)
