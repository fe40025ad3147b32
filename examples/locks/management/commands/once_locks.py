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
        used = {lock_of(*message): "waits" for message in messages()}
        answers = current_app.control.inspect(timeout=wait).active() or {}
        for running in answers.values():
            for task in running:
                used[lock_of(task["name"], task["args"], task["kwargs"])] = "runs"
        self.stdout.write(f"workers that answered: {len(answers)}")
        for lock in locks:
            if which not in (None, lock, task_of(lock)):
                continue
            seconds = cache.ttl(lock)
            left = "for good" if seconds is None else f"{round(seconds / 60)} min at most"
            self.stdout.write(f"{used.get(lock, 'left behind')}, {left}: {lock}")
            if free and (force or (answers and lock not in used)):
                cache.delete(lock)
                self.stdout.write("freed")


def messages():
    """Return name, arguments and keywords of what waits in Redis, or is held by a worker and has not begun."""
    with current_app.connection_for_read() as connection:
        redis = connection.default_channel.client
        queues = [name for name in redis.scan_iter(_type="list") if b"pidbox" not in name]
        found = [loads(raw) for name in queues for raw in redis.lrange(name, 0, -1)]
        found += [loads(raw)[0] for raw in redis.hvals("unacked")]
        bodies = [loads(connection.default_channel.decode_body(one["body"], "base64")) for one in found]
    return [(one["headers"]["task"], args, kwargs) for one, (args, kwargs, _) in zip(found, bodies, strict=True)]


def lock_of(name, args, kwargs):
    """Return the lock that this task gives back at its end, or None."""
    task = current_app.tasks.get(name)
    if isinstance(task, QueueOnce):
        with suppress(KeyError, TypeError):
            return task.get_key(args, kwargs)
    return None


def task_of(lock):
    """Return the name of the task that a lock belongs to: one name may be the beginning of another."""
    return max((name for name in current_app.tasks if f"{lock}_".startswith(f"qo_{name}_")), default="")
