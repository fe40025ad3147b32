from queue_once.tasks import update_characters

update_characters.delay((2112000001, 2112000002))
