from priorities.tasks import update_alliance_as_called

update_alliance_as_called.apply_async(args=[[98000001, 98000002]], priority=7)
