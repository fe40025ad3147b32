from priorities.tasks import update_alliance

update_alliance.apply_async(args=[[98000001, 98000002]], priority=7)
