from datetime import UTC, datetime

from first_task.tasks import show_arguments

show_arguments.delay(datetime(2026, 11, 24, 11, 0, tzinfo=UTC), (1, 2), {30000142: "Jita"})
