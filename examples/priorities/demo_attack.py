from priorities.tasks import report_attack

report_attack.apply_async(args=[1035466617946], priority=1)
