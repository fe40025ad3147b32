from chains.tasks import update_corporation

update_corporation.chunks([(number,) for number in range(98000001, 98000005)], 2).delay()
