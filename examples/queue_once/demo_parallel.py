from queue_once.tasks import update_corporation

update_corporation.delay(98000001)
update_corporation.delay(98000002)
