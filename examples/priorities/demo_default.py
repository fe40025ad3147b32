from priorities.tasks import update_structure

update_structure.delay(1035466617946)
