#!/usr/bin/env python3
"""A DNS provider on your own machine, for the solvers of these examples: zones and records behind a
small JSON API with a token, without any DNS. It prints what it is asked, so you see a solver at work.

    python3 examples/provider.py --zone example.test --token only-for-trying

    GET    /v1/zones?name=NAME                       {"zones": [{"id", "name"}]}
    GET    /v1/zones/ID/records?type=TXT&name=NAME   {"records": [{"id", "name", "content", "status"}]}
    POST   /v1/zones/ID/records                      {"type": "TXT", "name", "content", "ttl"} -> record
    GET    /v1/zones/ID/records/ID                   record; its status is "pending" or "live"
    DELETE /v1/zones/ID/records/ID

A record that is there already answers 409, one that is gone 404, a wrong token 401; every error has
{"error": "in words"}. With --script FILE (JSON) zones misbehave, for tests.
"""

import argparse
import itertools
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Provider:
    """All zones, and what is to go wrong in each."""

    def __init__(self, token, zones, script):
        self.token = token
        self.lock = threading.Lock()
        self.ids = itertools.count(1)
        self.zones = {}
        self.script = script
        for name in zones:
            self.add_zone(name)
        for plan in script.values():
            for name, zone in plan.get("zones", {}).items():
                self.add_zone(name, zone.get("id"))
                for record in zone.get("records", []):
                    self.add(self.zones[name], *record)

    def add_zone(self, name, identity=None):
        identity = identity or "zone-" + name.replace(".", "-")
        self.zones[name] = {"id": identity, "name": name, "records": []}

    def add(self, zone, name, content, pending=0):
        record = {"id": f"r{next(self.ids)}", "name": name, "content": content}
        zone["records"].append(record | {"pending": pending})
        return record | {"status": "pending" if pending else "live"}

    def plan_for(self, text):
        """The part of the script that a request belongs to: its key is in URL or record name."""
        return next(((key, plan) for key, plan in self.script.items() if key in text), ("", {}))

    def fault(self, plan, doing):
        """What is to go wrong now, or nothing."""
        for fault in plan.get("faults", []):
            if fault["on"] == doing and fault.get("times", 1) > 0:
                fault["times"] = fault.get("times", 1) - 1
                return fault
        return None

    def answer(self, method, target, body):
        """What is being done, on what, and the answer as status and JSON."""
        url = urlsplit(target)
        path = [unquote(part) for part in url.path.split("/")[1:]]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if path == ["v1", "zones"] and method == "GET":
            return "find", query.get("name", ""), lambda: self.find(query.get("name", ""))
        if len(path) not in (4, 5) or path[:2] != ["v1", "zones"] or path[3] != "records":
            return "nothing", target, lambda: refuse(404, "no such path")
        zone = next((zone for zone in self.zones.values() if zone["id"] == path[2]), None)
        if zone is None:
            return "nothing", path[2], lambda: refuse(404, "no such zone")
        if len(path) == 5:
            record = next((one for one in zone["records"] if one["id"] == path[4]), None)
            on = record["content"] if record else path[4]
            if method == "GET":
                return "get", on, lambda: self.get(record)
            if method == "DELETE":
                return "remove", on, lambda: self.remove(zone, record)
        elif method == "GET":
            return "list", query.get("name", ""), lambda: self.list(zone, query)
        elif method == "POST":
            return "add", zone["name"], lambda: self.post(zone, body)
        return "nothing", target, lambda: refuse(405, "no such method")

    def find(self, name):
        # As many providers do: what only ends alike is found too.
        found = [zone for zone in self.zones.values() if zone["name"].endswith(name)]
        zones = [{"id": zone["id"], "name": zone["name"]} for zone in found]
        return 200, {"zones": zones}

    def get(self, record):
        if record is None:
            return refuse(404, "no such record")
        status = "pending" if record["pending"] > 0 else "live"
        record["pending"] -= 1
        return 200, {key: record[key] for key in ("id", "name", "content")} | {"status": status}

    def list(self, zone, query):
        if query.get("type") != "TXT":
            return refuse(422, "only TXT records can be listed here")
        found = [one for one in zone["records"] if one["name"] == query.get("name")]
        keys = ("id", "name", "content")
        return 200, {"records": [{key: one[key] for key in keys} for one in found]}

    def post(self, zone, body):
        try:
            record = json.loads(body)
            name, content, ttl = record["name"], record["content"], record["ttl"]
        except (ValueError, KeyError, TypeError) as error:
            return refuse(400, f"this is no record: {error}")
        is_within = name == zone["name"] or name.endswith("." + zone["name"])
        if record.get("type") != "TXT" or not is_within or not isinstance(content, str):
            return refuse(422, f"a TXT record below {zone['name']} was expected")
        if type(ttl) is not int or ttl < 30:
            return refuse(422, "ttl: a number of at least 30")
        if any((one["name"], one["content"]) == (name, content) for one in zone["records"]):
            return refuse(409, "this record exists")
        _, plan = self.plan_for(zone["name"])
        return 201, self.add(zone, name, content, plan.get("pending", 0)) | {"ttl": ttl}

    def remove(self, zone, record):
        if record is None:
            return refuse(404, "no such record")
        zone["records"].remove(record)
        return 204, None


def name_in(body):
    """The name of the record in a body. Its content is random text, in which any key may stand."""
    try:
        return str(json.loads(body)["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def refuse(status, words):
    return status, {"error": words}


def handler(provider):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            with provider.lock:
                key, plan = provider.plan_for(self.path + name_in(body))
                doing, on, run = provider.answer(self.command, self.path, body)
                fault = provider.fault(plan, doing)
                headers = {}
                if self.headers.get("authorization") != f"Bearer {provider.token}":
                    status, answer = refuse(401, "this token is not known here")
                elif fault is None:
                    status, answer = run()
                else:
                    if fault.get("done"):
                        run()
                    status, answer = fault["status"], fault.get("body")
                    headers = fault.get("headers", {})
                zones = plan.get("zones", {}) or [on]
                left = [one["content"] for name in zones if name in provider.zones
                        for one in provider.zones[name]["records"]]
                line = {"key": key, "did": doing, "on": on, "status": status, "left": left}
                if doing == "add":
                    line["record"] = json.loads(body)
                # In the order of what was done, and before anybody hears of it.
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            text = answer if isinstance(answer, str) else json.dumps(answer)
            sent = b"" if answer is None else text.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            if status != 204:
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_DELETE = respond

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8053)
    parser.add_argument("--token", default="only-for-trying")
    parser.add_argument("--zone", action="append", default=[], help="may be repeated")
    parser.add_argument("--script", type=argparse.FileType(), help="what is to go wrong, as JSON")
    asked = parser.parse_args()
    script = json.load(asked.script) if asked.script else {}
    provider = Provider(asked.token, asked.zone, script)
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", asked.port), handler(provider))
    print(json.dumps({"serving": f"http://127.0.0.1:{asked.port}/v1"}), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
