from first_task.loggers import compare_loggers

compare_loggers.delay()
