from celery import current_app

with current_app.connection_for_read() as connection:
    redis = connection.default_channel.client
    for queue in ("celery", "services"):
        for priority in range(10):
            waiting = redis.llen(f"{queue}\x06\x16{priority}" if priority else queue)
            if waiting:
                print(f"{queue}, priority {priority}: {waiting} waiting")
    print(f"held by workers, not begun: {redis.hlen('unacked')}")
