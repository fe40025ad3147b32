from testing.tasks import find_ceo

result = find_ceo.apply((98000001,))
print(result.state, result.result)
