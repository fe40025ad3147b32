from queue_once.tasks import update_corporation

for _ in range(2):
    if update_corporation.delay(98000001).id:
        print("The update has been started")
    else:
        print("The update is under way already")
