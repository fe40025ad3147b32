from time_limits.tasks import update_assets

update_assets.delay(pages=12)
