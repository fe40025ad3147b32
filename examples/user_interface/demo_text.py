from allianceauth.notifications import notify
from django.contrib.auth.models import User

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
notify.info(user, "Pilots & <b>ships</b>", "Kaia: Rifter\nTomo: <i>Kestrel</i>")
