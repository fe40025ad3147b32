from celery import current_app

with current_app.connection_for_write() as connection:
    for queue in ("celery", "services"):
        print(queue, connection.default_channel.queue_purge(queue), "thrown away")
