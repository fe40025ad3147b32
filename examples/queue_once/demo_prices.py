from queue_once.tasks import update_prices

for region_id in (10000002, 10000043):
    result = update_prices.delay(region_id)
    print(region_id, "accepted" if result.id else "rejected")
