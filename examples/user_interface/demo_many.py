from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User

user = User.objects.create(username="Much_Notified")
for number in range(52):
    notify.info(user, f"Audit {number}")
kept = Notification.objects.filter(user=user)
print(kept.count(), "kept, from", kept.first().title, "to", kept.last().title)
