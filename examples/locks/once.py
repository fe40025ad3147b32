from allianceauth.services.tasks import QueueOnce
from celery.contrib.django.task import DjangoTask
from celery.signals import task_revoked
from kombu.exceptions import EncodeError, OperationalError


class Once(QueueOnce, DjangoTask):
    """A QueueOnce that leaves no lock where it is not sent, revoked or expired, and has delay_on_commit()."""

    def apply_async(self, args=None, kwargs=None, **options):
        try:
            return super().apply_async(args, kwargs, **options)
        except (EncodeError, OperationalError):
            self.give_back(args, kwargs)
            raise

    def give_back(self, args, kwargs):
        self.once_backend.clear_lock(self.get_key(args, kwargs))


@task_revoked.connect
def thrown_away(sender, request, **kwargs):
    if isinstance(sender, Once):
        sender.give_back(request.args, request.kwargs)


class AtMostOnce(QueueOnce):
    """A QueueOnce that keeps its lock when it has ended: one run in so many seconds, its timeout."""

    def after_return(self, *args):
        pass
