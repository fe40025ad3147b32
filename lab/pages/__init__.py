"""What only the pages' kernels need: the build's, the live server's, and the browser's."""
