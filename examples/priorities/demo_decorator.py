from priorities.tasks import update_timers

update_timers.delay(1035466617946)
update_timers.apply_async(args=[1038457641673], priority=7)
