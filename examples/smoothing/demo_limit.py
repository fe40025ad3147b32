from smoothing.tasks import update_corporation_history

for character_id in range(90000001, 90000006):
    update_corporation_history.delay(character_id)
