"""A handler in a container of its own, for tests/container/run: takes events, and writes down each request before it answers.

Usage: handler.py NAME FOLDER   writes FOLDER/NAME.ndjson; while FOLDER/NAME.refuses is there, what has "refuse" in it is answered 422.
Deliberately absent: what should have come, and in which order (`books`).
"""
import json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 7560
# As long as some work takes, so that requests are in flight at any moment.
WORK_SECONDS = 0.02
NAME, FOLDER = sys.argv[1], sys.argv[2]
BOOK = open(os.path.join(FOLDER, f"{NAME}.ndjson"), "a")
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        refused = "refuse" in body and os.path.exists(os.path.join(FOLDER, f"{NAME}.refuses"))
        time.sleep(WORK_SECONDS)
        if not refused:
            one = {name: self.headers.get(header) for name, header in [("id", "webhook-id"), ("attempt", "x-event-attempt"), ("replay", "x-event-replay")]}
            with LOCK:
                BOOK.write(json.dumps({**one, "body": body}) + "\n")
                BOOK.flush()
        answer = b"no such chat" if refused else b""
        self.send_response(422 if refused else 200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Server(("0.0.0.0", PORT), Handler).serve_forever()
