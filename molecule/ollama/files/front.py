"""What Ollama expects in front of a registry: layers come from another host name.

Not a stand-in: behind it is Debian's docker-registry, which took the models from a real `ollama
push`. On port 5001 are the manifests, and redirects for the layers; on port 5002 the layers, from
the registry's own files. For the tests it notes what was asked for, and while /run/front.cut exists
it hangs up after so many bytes of a layer.
"""

import http.client
import http.server
import json
import os
import re
import threading

LAYERS = "/var/lib/docker-registry/docker/registry/v2/blobs/sha256"
CUT = "/run/front.cut"
SEEN = "/run/front.seen"


class Quiet(http.server.BaseHTTPRequestHandler):
    """Common to both ports."""

    def log_message(self, *_arguments):
        """Say nothing."""

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def layer_of(path):
    """Return the file of the layer that a path asks for, or None."""
    found = re.search(r"/blobs/sha256:([0-9a-f]{64})$", path)
    return os.path.join(LAYERS, found[1][:2], found[1], "data") if found else None


class Registry(Quiet):
    """Manifests, and where the layers are."""

    def do_GET(self):
        layer = layer_of(self.path)
        if layer and self.command == "HEAD":
            self.send_response(200)
            self.send_header("Content-Length", str(os.path.getsize(layer)))
            self.end_headers()
        elif layer:
            # By address, which is another host name than the one of the request.
            self.answer(
                307, {"Location": f"http://{self.connection.getsockname()[0]}:5002{self.path}"}
            )
        else:
            registry = http.client.HTTPConnection("127.0.0.1", 5000, timeout=20)
            registry.request(
                "GET", self.path, headers={"Accept": self.headers.get("Accept", "*/*")}
            )
            response = registry.getresponse()
            body = response.read()
            self.answer(
                response.status, {"Content-Type": response.getheader("Content-Type", "")}, body
            )


class Layers(Quiet):
    """The layers, with ranges."""

    def do_GET(self):
        size = os.path.getsize(layer_of(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        last = int(wanted[2]) if wanted and wanted[2] else size - 1
        with open(layer_of(self.path), "rb") as handle:
            handle.seek(first)
            body = handle.read(last - first + 1)
        with open(SEEN, "a", encoding="utf-8") as seen:
            seen.write(
                json.dumps({"layer": self.path[-64:], "first": first, "last": last, "size": size})
                + "\n"
            )
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if os.path.exists(CUT):
            with open(CUT, encoding="utf-8") as limit:
                body = body[: max(0, int(limit.read()) - first)]
        self.wfile.write(body)


if __name__ == "__main__":
    layers = http.server.ThreadingHTTPServer(("", 5002), Layers)
    threading.Thread(target=layers.serve_forever, daemon=True).start()
    http.server.ThreadingHTTPServer(("", 5001), Registry).serve_forever()
