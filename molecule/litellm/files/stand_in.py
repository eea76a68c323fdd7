"""A stand-in for an engine, for this scenario alone: an OpenAI-compatible answer, and a stream of
two seconds."""

from __future__ import annotations

import http.server
import json
import time

PORT = 9000
EVENTS, PAUSE_S = 20, 0.1


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers every chat the same way."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer with one message, or stream it word by word."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        common = {"id": "x", "created": 0, "model": "stand-in"}
        if not request.get("stream"):
            message = {"role": "assistant", "content": "hello"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            body = json.dumps(
                {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            finish = "stop" if number == EVENTS - 1 else None
            choice = {
                "index": 0,
                "delta": {"role": "assistant", "content": f"w{number} "},
                "finish_reason": finish,
            }
            self._chunk(
                json.dumps({**common, "object": "chat.completion.chunk", "choices": [choice]})
            )
            time.sleep(PAUSE_S)
        self._chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Engine).serve_forever()
