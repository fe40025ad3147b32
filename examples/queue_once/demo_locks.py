from django.core.cache import cache

for key in sorted(cache.iter_keys("qo_*")):
    print(f"{key} is held for {cache.ttl(key)} s at most")
