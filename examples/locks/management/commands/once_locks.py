from contextlib import suppress

from celery import current_app
from celery_once import QueueOnce
from django.core.cache import cache
from django.core.management.base import BaseCommand
from kombu.utils.json import loads


class Command(BaseCommand):
    help = "Lists the locks of QueueOnce tasks, and frees those that were left behind."

    def add_arguments(self, parser):
        parser.add_argument("which", nargs="?", help="the name of a task, or one lock; all if left out")
        parser.add_argument("--free", action="store_true", help="free those that were left behind")
        parser.add_argument("--force", action="store_true", help="with --free: those in use, too")
        parser.add_argument("--wait", type=float, default=3, help="seconds for the workers to answer")

    def handle(self, which, free, force, wait, **options):
        current_app.loader.import_default_modules()
        locks = sorted(cache.iter_keys("qo_*"))
        waiting = set(locks_of(messages()))
        answers = current_app.control.inspect(timeout=wait).active() or {}
        running = [task for tasks in answers.values() for task in tasks]
        runs = set(locks_of((task["name"], task["args"], task["kwargs"]) for task in running))
        self.stdout.write(f"workers that answered: {len(answers)}")
        for lock in locks:
            if which not in (None, lock, task_of(lock)):
                continue
            seconds = cache.ttl(lock)
            left = "for good" if seconds is None else f"{round(seconds / 60)} min at most"
            state = "runs" if lock in runs else "waits" if lock in waiting else "left behind"
            self.stdout.write(f"{state}, {left}: {lock}")
            if free and (force or (answers and state == "left behind")):
                cache.delete(lock)
                self.stdout.write("freed")


def messages():
    """Return name, arguments and keywords of what waits in Redis, or is held by a worker and has not begun."""
    with current_app.connection_for_read() as connection:
        channel = connection.default_channel
        redis = channel.client
        queues = [name for name in redis.scan_iter(_type="list") if b"pidbox" not in name]
        found = [loads(raw) for name in queues for raw in redis.lrange(name, 0, -1)]
        found += [loads(raw)[0] for raw in redis.hvals("unacked")]
        return [(one["headers"]["task"], *loads(channel.decode_body(one["body"], "base64"))[:2]) for one in found]


def locks_of(tasks):
    """Yield the locks that these tasks give back when they end."""
    for name, args, kwargs in tasks:
        task = current_app.tasks.get(name)
        if isinstance(task, QueueOnce):
            with suppress(KeyError, TypeError):
                yield task.get_key(args, kwargs)


def task_of(lock):
    """Return the name of the task that a lock belongs to: one name may be the beginning of another."""
    return max((name for name in current_app.tasks if f"{lock}_".startswith(f"qo_{name}_")), default="")
