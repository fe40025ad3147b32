import json

from celery import current_app

from time_limits.tasks import update_member

dropped = 0
with current_app.connection_for_write() as connection:
    redis = connection.default_channel.client
    for queue in ("celery", "services"):
        for priority in range(10):
            waiting = f"{queue}\x06\x16{priority}" if priority else queue
            for message in redis.lrange(waiting, 0, -1):
                if json.loads(message)["headers"]["task"] == update_member.name:
                    dropped += redis.lrem(waiting, 1, message)
print(dropped, "dropped")
