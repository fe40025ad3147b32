from first_task.tasks import count_members

count_members.delay(98999999)
