from locks.tasks import update_corporation

for corporation_id in (98000001, 98000002):
    update_corporation.apply_async([corporation_id], expires=0)
