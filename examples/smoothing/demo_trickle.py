from smoothing.tasks import trickle_corporations

trickle_corporations.delay([98000001, 98000002, 98000003, 98000004], seconds=0.3)
