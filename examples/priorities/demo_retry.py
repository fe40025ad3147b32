from priorities.tasks import update_contracts

update_contracts.apply_async(args=[98000001], priority=7)
