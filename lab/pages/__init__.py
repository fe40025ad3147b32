"""What only the site needs: kernels that run its calls, one for each role of a page, and the server of live pages.

A folder for each; what the roles share stands here. `python -m lab.pages.built` and `python -m lab.pages.live` are
kernels, which Jupyter starts; `python -m lab.pages.server` is what `nox -s live` starts.
"""
