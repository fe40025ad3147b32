from django.contrib.auth.models import User

from user_interface.tasks import audit_new_corporation

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
audit_new_corporation.delay(98999999, user_pk=user.pk)
