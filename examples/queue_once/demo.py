from queue_once.tasks import update_corporation

accepted = update_corporation.delay(98000001)
rejected = update_corporation.delay(98000001)
