corporations = list(range(98000001, 98000066))
size = len(corporations) // 10
updated = []
for run in range(10):
    updated += corporations[run * size : (run + 1) * size]
print(f"{len(updated)} of {len(corporations)} updated")
