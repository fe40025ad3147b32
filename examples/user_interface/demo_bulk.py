from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User

user = User.objects.create(username="Bulk_Notified")
notify.info(user, "Audit 1")
print(Notification.objects.user_unread_count(user.pk), "unread")
Notification.objects.bulk_create([Notification(user=user, title="Audit 2")])
print(Notification.objects.user_unread_count(user.pk), "unread, says the cache")
print(Notification.objects.filter(user=user).count(), "unread, says the database")
