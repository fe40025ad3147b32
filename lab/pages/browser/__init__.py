"""Alliance Auth and Celery in the reader's browser: Python that runs in Pyodide, in a Web Worker."""
