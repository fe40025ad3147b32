from chains.tasks import update_in_a_chain

update_in_a_chain.delay([98000001, 98000002, 98000003, 98000004, 98000005, 98000006])
