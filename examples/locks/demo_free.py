from django.core.management import call_command

call_command("once_locks", "locks.tasks.update_corporation", "--free")
