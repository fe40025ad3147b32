from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User

user = User.objects.create(username="Much_Notified")
for number in range(1, 53):
    notify.info(user, f"Audit {number}")
kept = Notification.objects.filter(user=user).order_by("pk")
print(len(kept), "kept, from", kept[0].title, "to", kept[len(kept) - 1].title)
