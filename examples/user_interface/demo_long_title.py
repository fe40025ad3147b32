from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
Notification.objects.notify_user(user, "x" * 300)
notification = Notification.objects.get(user=user)
room = Notification._meta.get_field("title").max_length
print(len(notification.title), "characters in a column for", room)
