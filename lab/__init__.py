"""The lab: it starts the real parts an example needs, and takes everything down again.

It knows how to start things, never a chapter: broker, Alliance Auth project, worker, beat, web server.
"""
