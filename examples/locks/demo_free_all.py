from django.core.cache import cache

from locks.tasks import update_corporation

cache.delete_pattern(f"qo_{update_corporation.name}_corporation_id-*")
