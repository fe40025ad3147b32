from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
for level in ("danger", "error"):
    notify(user, f"A {level}", level=level)
    print(level, "becomes", Notification.objects.get(user=user, title=f"A {level}").level)
