from periodic_tasks.tasks import remind_users_without_main

remind_users_without_main.delay()
