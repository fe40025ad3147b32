from celery import current_app

current_app.conf.broker_transport_options["visibility_timeout"] = 12 * 60 * 60
