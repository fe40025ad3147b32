from django.contrib.auth.models import User

from user_interface.tasks import audit_members

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
audit_members.delay(98999999, user.pk)
