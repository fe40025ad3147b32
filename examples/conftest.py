"""The examples' tests stand on the fixture `rig`, which comes from the plugin in `lab/plugin.py`."""
