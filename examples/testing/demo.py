from testing.tasks import note

print("the call returned", note(98000001))

result = note.apply((98000001,))
print("apply returned", result.state, result.result)
