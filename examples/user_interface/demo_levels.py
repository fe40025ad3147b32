from allianceauth.notifications import notify
from django.contrib.auth.models import User

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
notify.info(user, "The fleet was counted")
notify.success(user, "Every pilot is in Auth")
notify.warning(user, "A pilot has no token")
notify.danger(user, "The fleet has ended")
