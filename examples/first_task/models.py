from allianceauth.eveonline.models import EveCharacter
from django.db import models


class Roster(models.Model):
    """How many characters of a corporation Alliance Auth knows."""

    corporation_id = models.PositiveIntegerField(primary_key=True)
    members = models.PositiveIntegerField(default=0)

    def count(self):
        """Count the characters anew and keep the number."""
        members = EveCharacter.objects.filter(corporation_id=self.corporation_id)
        self.members = members.count()
        self.save()
