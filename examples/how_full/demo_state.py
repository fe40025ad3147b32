from django.core.management import call_command

call_command("how_full", wait=30)
