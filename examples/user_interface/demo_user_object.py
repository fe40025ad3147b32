from django.contrib.auth.models import User
from kombu.exceptions import EncodeError

from user_interface.tasks import audit_members

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
try:
    audit_members.delay(98000001, user)
except EncodeError as error:
    print(error)
