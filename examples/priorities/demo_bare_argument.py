from priorities.tasks import update_structure

try:
    update_structure.apply_async(1035466617946)
except TypeError as error:
    print(error)
