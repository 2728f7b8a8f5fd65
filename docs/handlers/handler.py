#!/usr/bin/env python3
"""A handler in Python, to begin from; the standard library is enough.

It believes only what is signed and fresh, does each event once, and answers so that event-router knows what to do next:

    WEBHOOK_SECRET=whsec_... python3 handler.py 127.0.0.1:7560 handled.sqlite

Several secrets have blanks between. What is done is remembered in a database, in the same transaction as the work.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300  # who has an old request cannot use it again
BODY_BYTES = 16 << 20  # the largest event that is taken


class Never(Exception):
    """This event can never be done: event-router keeps it as a dead letter and goes on with the chat."""


class NotNow(Exception):
    """Something that we need is away: nothing is sent to us for so many seconds, and nothing is lost."""


class Unbelieved(Exception):
    """Nobody who knows a secret has sent this, or not lately."""


def work(event, database):
    """The work: yours goes here. What it writes to the database is kept together with the id, or not at all."""
    if not isinstance(event, dict) or "event_type" not in event:
        raise Never("this is no event")
    try:
        print(event["event_id"], event["event_type"], "in", event["peer_id"], event.get("text"), flush=True)
    except OSError:
        raise NotNow(5)


def keys_of(secrets):
    """The keys of `whsec_... whsec_...`."""
    keys = []
    for secret in secrets.split():
        if not secret.startswith("whsec_"):
            raise ValueError("a secret begins with whsec_")
        keys.append(base64.b64decode(secret[len("whsec_"):], validate=True))
    return keys


def verify(keys, headers, body, now):
    """The id of a request that one of the keys has signed, lately; else Unbelieved."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    event_id, timestamp, signatures = (headers.get(name) or "" for name in names)
    if not (event_id and timestamp.isascii() and timestamp.isdigit()):
        raise Unbelieved("a webhook header is missing")
    if abs(int(timestamp) - now) > TOLERANCE_SECONDS:
        raise Unbelieved("the timestamp is too far from now; are both clocks right?")
    signed = b"%s.%s.%s" % (event_id.encode(), timestamp.encode(), body)
    right = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    for signature in signatures.split(" "):
        version, _, text = signature.partition(",")
        if version != "v1":
            continue  # signatures of other versions may stand beside
        try:
            found = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            continue
        # compare_digest takes as long for a wrong one as for a right one.
        if any(hmac.compare_digest(found, one) for one in right):
            return event_id
    raise Unbelieved("no signature is right; is the secret the same on both sides?")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    wbufsize = -1  # an answer goes out in one piece
    timeout = 90  # longer than event-router keeps an idle one
    keys = []
    database = None
    lock = threading.Lock()

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > BODY_BYTES:
            self.close_connection = True
            return self.answer(413, "no content-length, or too much of it")
        # The bytes as they came: JSON that was read and written again may have others.
        body = self.rfile.read(int(length))
        try:
            event_id = verify(self.keys, self.headers, body, time.time())
        except Unbelieved as why:
            return self.answer(401, str(why))
        try:
            event = json.loads(body)
        except ValueError:
            return self.answer(400, "this is no JSON")
        try:
            # One at a time, so that a repeat that comes while the first is worked on waits for it.
            with self.lock, self.database as database:
                new = database.execute("INSERT OR IGNORE INTO handled (id) VALUES (?)", (event_id,)).rowcount
                if new:
                    work(event, database)
            # A repeat was done before, and our answer did not arrive: it is delivered.
            return self.answer(200, "done" if new else "done before")
        except Never as why:
            return self.answer(422, str(why))
        except NotNow as seconds:
            return self.answer(503, "not now", {"retry-after": str(seconds)})
        except Exception as error:  # whatever it is: the transaction is taken back, the event comes again
            print(f"failed: {error!r}", file=sys.stderr, flush=True)
            return self.answer(500, "failed")

    def answer(self, status, words, headers={}):
        body = words.encode()
        self.send_response(status)
        for name, value in {**headers, "content-type": "text/plain", "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # event-router opens up to `concurrency` connections at once


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7560"
    host, _, port = address.rpartition(":")
    Handler.keys = keys_of(os.environ["WEBHOOK_SECRET"])
    file = sys.argv[2] if len(sys.argv) > 2 else "handled.sqlite"
    Handler.database = sqlite3.connect(file, check_same_thread=False)
    Handler.database.execute("CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY)")
    server = Server((host, int(port)), Handler)
    print("READY http://%s:%d" % server.server_address[:2], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
