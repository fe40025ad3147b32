import json
import time

from celery import current_app

with current_app.connection_for_read() as connection:
    redis = connection.default_channel.client
    held = redis.hgetall("unacked")
    for tag, taken in redis.zrange("unacked_index", 0, -1, withscores=True):
        if tag in held:
            headers = json.loads(held[tag])[0]["headers"]
            print(headers["task"], headers["argsrepr"], "taken", round((time.time() - taken) / 60), "minutes ago")
