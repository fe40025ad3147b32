import json
import time

from celery import current_app

with current_app.connection_for_read() as connection:
    redis = connection.default_channel.client
    for tag, since in redis.zrange("unacked_index", 0, -1, withscores=True):
        held = redis.hget("unacked", tag)
        # What has begun meanwhile is held no more.
        if held:
            task = json.loads(held)[0]["headers"]
            minutes = int(time.time() - since) // 60
            print(f"{task['task']}{task['argsrepr']} has been held for {minutes} minutes")
