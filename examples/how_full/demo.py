import time

from how_full.progress import begin, progress
from how_full.tasks import import_assets

job = begin(3)
for corporation_id in (98000001, 98000002, 98000003):
    import_assets.delay(corporation_id, job)

done = 0
while done < 3:
    time.sleep(0.2)
    done = progress(job)["done"]
print("{done} of {total}".format(**progress(job)))
