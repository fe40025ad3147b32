from first_task.tasks import greet

greet.delay("Ada")
