from celery import current_app

with current_app.connection_for_write() as connection:
    connection.default_channel.client.config_set("appendonly", "yes")
