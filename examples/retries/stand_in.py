import json
import threading
from _thread import start_new_thread
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, headers = self.server.answer(self.path)
        if status is None:
            self.server.speak.wait()
            status = 200
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps({"name": self.path}).encode())

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Gives each path its `answers` in turn, the last one again and again, and notes what was `asked`.

    An answer is a status, a pair of status and headers, or None, which says nothing until `speak` is set.
    """

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers, self.asked, self.speak = answers, [], threading.Event()
        start_new_thread(self.serve_forever, ())

    def answer(self, path):
        self.asked.append(path)
        answer = self.answers[min(self.asked.count(path), len(self.answers)) - 1]
        return answer if isinstance(answer, tuple) else (answer, {})
