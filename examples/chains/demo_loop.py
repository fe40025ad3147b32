from chains.tasks import update_in_a_loop

update_in_a_loop.delay([98000001, 98000002, 98000003, 98000004, 98000005, 98000006])
