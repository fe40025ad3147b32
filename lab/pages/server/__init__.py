"""The server of the live pages: the site and its kernels on one origin, behind a token."""
