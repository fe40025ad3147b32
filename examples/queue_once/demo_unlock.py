from queue_once.tasks import recount_fleets

recount_fleets.apply_async([98000001], countdown=1)
result = recount_fleets.delay(98000001)
print("while the first waits:", "accepted" if result.id else "rejected")
