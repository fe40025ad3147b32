from django.core.management.base import BaseCommand

from how_full.state import state


class Command(BaseCommand):
    help = "Tells what waits in Celery's queues, what workers hold and run, and what failed."

    def add_arguments(self, parser):
        parser.add_argument("--wait", type=float, default=3, help="seconds for the workers to answer")

    def handle(self, wait, **options):
        found = state(wait)
        for row in found["waiting"]:
            seconds = row["seconds"]
            since = "at an unknown time" if seconds is None else f"{seconds // 60} min ago"
            self.stdout.write("{queue}, priority {priority}: {count} waiting, the next one sent ".format(**row) + since)
        self.stdout.write(f"held by workers, not begun: {found['held']}; scheduled: {found['scheduled']}")
        for node, names in found["running"].items():
            self.stdout.write(f"{node} runs: {', '.join(names) or 'nothing'}")
        for node in found["silent"]:
            self.stdout.write(f"{node} does not answer: what it runs is not known")
        self.stdout.write(f"locks of QueueOnce: {found['locks']}")
        for name, count in found["failed"].items():
            self.stdout.write(f"failed within a day: {name}, {count} x")
