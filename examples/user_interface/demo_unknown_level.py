from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
notify(user, "The audit failed", level="error")
print(Notification.objects.get(user=user, title="The audit failed").level)
