from celery import current_app

inspect = current_app.control.inspect(timeout=30, limit=1)
for name in ("active", "reserved", "scheduled"):
    for tasks in getattr(inspect, name)().values():
        print(name, len(tasks))
