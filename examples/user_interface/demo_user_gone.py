from django.contrib.auth.models import User

from user_interface.tasks import audit_members

user = User.objects.create(username="Gone_Tomorrow")
user_pk = user.pk
user.delete()
audit_members.delay(98000001, user_pk)
