from chains.tasks import update_in_a_chain

update_in_a_chain.delay([98000001, 98000002])
update_in_a_chain.delay([98000001, 98000002])
