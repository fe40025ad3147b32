from time_limits.tasks import update_corporations

update_corporations.apply_async(
    args=[[98000001, 98000002, 98000003, 98000004, 98000005, 98000006]],
    time_limit=0.2,
)
