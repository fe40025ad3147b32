from first_task.reports import send_report

send_report.delay()
