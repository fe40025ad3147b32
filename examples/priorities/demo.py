from priorities.tasks import update_structure

update_structure.apply_async(
    args=[1035466617946],
    kwargs={"with_fittings": True},
    priority=3,
)
