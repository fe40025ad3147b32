from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.notifications.models import Notification
from django.contrib.auth.models import User
from django.db import transaction

from user_interface.tasks import audit_members

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
try:
    with transaction.atomic():
        audit_members(98999999, user.pk)
except EveCorporationInfo.DoesNotExist as error:
    print(error)
print(Notification.objects.filter(user=user).count(), "notifications")
