from random import randint

from smoothing.tasks import update_corporation

for corporation_id in (98000001, 98000002, 98000003):
    update_corporation.apply_async(args=[corporation_id])
    update_corporation.apply_async(args=[corporation_id], countdown=randint(1, 600))
