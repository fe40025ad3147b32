from locks.tasks import update_members, update_roles

update_members.delay(98000001)
update_roles.delay(98000001)
