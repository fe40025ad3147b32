from celery import current_app


def start(task, *args, seconds):
    """Start `task`; raise `OperationalError` where Redis does not answer within `seconds`, tried up to four times."""
    options = {"socket_timeout": seconds}
    with current_app.connection_for_write(transport_options=options) as connection:
        return task.apply_async(args, connection=connection)
