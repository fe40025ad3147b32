"""The site's Sphinx extensions; each module has one job."""
