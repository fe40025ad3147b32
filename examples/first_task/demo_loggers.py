from first_task.tasks import compare_loggers

compare_loggers.delay()
