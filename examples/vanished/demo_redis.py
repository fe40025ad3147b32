from celery import current_app

with current_app.connection_for_read() as connection:
    redis = connection.default_channel.client
    for name in ("save", "appendonly", "maxmemory", "maxmemory-policy"):
        print(name, "=", redis.config_get(name)[name])
