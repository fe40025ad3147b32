from first_task.tasks import count_members_or_tell

count_members_or_tell.delay(98999999)
