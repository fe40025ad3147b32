from celery import current_app

current_app.conf.broker_transport_options["socket_timeout"] = 5
