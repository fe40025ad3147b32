from chains.tasks import update_corporation

update_corporation.chunks([(corporation_id,) for corporation_id in range(98000001, 98000005)], 2).delay()
