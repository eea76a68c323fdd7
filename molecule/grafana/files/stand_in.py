#!/usr/bin/python3 -I
"""A stand-in for Grafana's program, because no registry in reach has it.

It takes the arguments, reads the configuration and the provisioned files, and answers the few
requests that the tests send, from what it read; queries go to the provisioned Prometheus. It draws
nothing. A real Grafana was not seen.
"""

import base64
import configparser
import glob
import http.server
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

VERSION = "99.0.0"


def read(path):
    """Return a file's text."""
    with open(path, encoding="utf-8") as handle:
        return handle.read()


class Settings:
    """The configuration, with secrets read from their files."""

    def __init__(self, path):
        self.parser = configparser.ConfigParser(interpolation=None)
        self.parser.read_string(read(path))

    def get(self, section, name):
        text = self.parser[section][name]
        file = re.fullmatch(r"\$__file\{(.*)\}", text)
        return read(file[1]).strip() if file else text


def serve(settings):
    """Read what is provisioned, and listen."""
    provisioning = settings.get("paths", "provisioning")
    datasource = read(f"{provisioning}/datasources/modelyard.yml")
    provider = read(f"{provisioning}/dashboards/modelyard.yml")
    Handler.prometheus = re.search(r'url: "(.*)"', datasource)[1]
    Handler.uid = re.search(r"uid: (\S+)", datasource)[1]
    Handler.data = {"timeInterval": re.search(r"timeInterval: (\w+)", datasource)[1]}
    Handler.folder = re.search(r"folder: (\S+)", provider)[1]
    files = sorted(glob.glob(re.search(r"path: (.*?)}", provider)[1] + "/*.json"))
    Handler.dashboards = {one["uid"]: one for one in map(json.loads, map(read, files))}
    Handler.settings = settings
    password = settings.get("security", "admin_password")
    settings.get("security", "secret_key")
    Handler.login = (settings.get("security", "admin_user"), password)
    address = (settings.get("server", "http_addr"), int(settings.get("server", "http_port")))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_arguments):
        """Say nothing."""

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def known(self):
        """Say whether the request has the admin's name and password."""
        wanted = base64.b64encode(":".join(self.login).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {wanted}"

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/api/health":
            self.answer(200, {"database": "ok", "version": VERSION})
        elif not self.known():
            self.answer(401, {"message": "Unauthorized"})
        elif path == "/api/user":
            self.answer(200, {"login": self.login[0], "isGrafanaAdmin": True})
        elif path == "/api/search":
            found = [{"uid": uid, "title": one["title"]} for uid, one in self.dashboards.items()]
            self.answer(
                200, [{**one, "type": "dash-db", "folderTitle": self.folder} for one in found]
            )
        elif path.startswith("/api/dashboards/uid/") and path.rpartition("/")[2] in self.dashboards:
            board = self.dashboards[path.rpartition("/")[2]]
            self.answer(
                200, {"dashboard": board, "meta": {"provisioned": True, "folderTitle": self.folder}}
            )
        elif path == f"/api/datasources/uid/{self.uid}":
            known = {
                "uid": self.uid,
                "url": self.prometheus,
                "type": "prometheus",
                "readOnly": True,
            }
            self.answer(200, {**known, "jsonData": self.data})
        elif path == "/api/admin/settings":
            self.answer(
                200, {name: dict(section) for name, section in self.settings.parser.items()}
            )
        else:
            self.answer(404, {"message": "Not found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path == "/login":
            good = (body.get("user"), body.get("password")) == self.login
            self.answer(
                200 if good else 401,
                {"message": "Logged in" if good else "Invalid username or password"},
            )
        elif self.path != "/api/ds/query" or not self.known():
            self.answer(401, {"message": "Unauthorized"})
        else:
            results = {one["refId"]: self.query(one, body) for one in body["queries"]}
            worst = max(one["status"] for one in results.values())
            self.answer(worst, {"results": results})

    def query(self, one, body):
        """Ask Prometheus, as a range over what the request says."""
        if one["datasource"]["uid"] != self.uid:
            return {"status": 404, "error": "no such datasource"}
        expression = one["expr"].replace("$__rate_interval", "1m").replace("$__range", "1h")
        times = {"start": int(body["from"]) / 1000, "end": int(body["to"]) / 1000, "step": 60}
        form = urllib.parse.urlencode({"query": expression, **times}).encode()
        try:
            with urllib.request.urlopen(
                f"{self.prometheus}/api/v1/query_range", form, timeout=30
            ) as response:
                found = json.load(response)["data"]["result"]
        except urllib.error.HTTPError as error:
            return {"status": 400, "error": json.load(error)["error"]}
        return {
            "status": 200,
            "frames": [{"schema": {"fields": [{"labels": series["metric"]}]}} for series in found],
        }


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print(f"grafana version {VERSION} (a stand-in)")
    elif sys.argv[1] == "server":
        options = dict(argument[2:].split("=", 1) for argument in sys.argv[2:])
        read(f"{options['homepath']}/conf/defaults.ini")
        serve(Settings(options["config"]))
    else:
        sys.exit(f"the stand-in does not know {sys.argv[1:]}")
