from celery import chain

print(chain([]).delay())
