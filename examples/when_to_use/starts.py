from celery import current_app


def start(task, *args, seconds=5):
    """Start `task`; raises `OperationalError` where Redis keeps silent for so many seconds."""
    options = {"socket_timeout": seconds}
    with current_app.connection_for_write(transport_options=options) as connection:
        return task.apply_async(args, connection=connection)
