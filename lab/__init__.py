"""The lab: it starts the real parts an example needs, and takes everything down again.

It knows how to start things, never a chapter: broker, Alliance Auth project, worker, beat, web server.
"""

import sys

if sys.platform == "win32":
    # Whatever is run comes by here first.
    sys.exit("Nothing of this runs on Windows, which has no fork(): use WSL, the Windows Subsystem for Linux.")
