from first_task.tasks import greet


def greet_later():
    return greet.delay("Ada")
