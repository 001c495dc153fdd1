"""A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API
is the one of `examples/provider.py`, so that all of this can be tried on one machine.

The gateway computes names and values, retries, waits and cleans up; here is only the API. The token
is a placeholder: the gateway puts the secret in when it sends."""

from typing import Optional

import witgate
from witgate import dns
from witgate.dns import Answer, Failure, Zone, escape


class ExampleDns:
    def __init__(self, config) -> None:
        config = witgate.want(config, "config", {"api": str, "ttl": int}, {"ttl": None})
        self.api, self.ttl = config["api"].rstrip("/"), config["ttl"]
        if not self.api.startswith(("https://", "http://")):
            raise ValueError("config.api: a URL such as https://api.provider.example/v1")
        if self.ttl is not None and self.ttl < 1:
            raise ValueError("config.ttl: at least one second")

    def traits(self) -> dict[str, int]:
        return {"ttl-min": 30}

    def find_zone(self, candidates: list[str]) -> Zone:
        for name in candidates:
            found = checked(self.send("GET", f"/zones?name={escape(name)}"))
            for zone in entries(found, "zones"):
                if zone["name"] == name:
                    return Zone(name, zone["id"])
        raise Failure.zone_not_found(candidates)

    def present(self, zone: Zone, name: str, values: list[str], ttl: int) -> str:
        ids = []
        for value in values:
            record = {"type": "TXT", "name": name, "content": value, "ttl": self.ttl or ttl}
            answer = self.send("POST", records(zone), record)
            # 409: it is there already, from a call that did not come through.
            if answer.status != 409:
                ids.append(checked(answer).json()["id"])
        # Records that were there already are found by their value when they are removed.
        return " ".join(ids) if len(ids) == len(values) else ""

    def poll(self, zone: Zone, handle: str) -> Optional[int]:
        for identity in handle.split():
            record = checked(self.send("GET", f"{records(zone)}/{escape(identity)}")).json()
            if record.get("status") == "pending":
                return 1
        return None

    def cleanup(self, zone: Zone, name: str, values: list[str], handle: str) -> None:
        ids = handle.split()
        if not ids:
            listed = self.send("GET", f"{records(zone)}?type=TXT&name={escape(name)}")
            # Nobody else's: the name may hold more than ours.
            found = entries(checked(listed), "records")
            ids = [record["id"] for record in found if record["content"] in values]
        for identity in ids:
            answer = self.send("DELETE", f"{records(zone)}/{escape(identity)}")
            # 404: it is gone already.
            if answer.status != 404:
                checked(answer)

    def send(self, method: str, path: str, body=None) -> Answer:
        return dns.send(method, self.api + path, json_body=body, bearer="token")


def records(zone: Zone) -> str:
    return f"/zones/{escape(zone.handle)}/records"


def entries(answer: Answer, key: str) -> list[dict]:
    """A list of maps in an answer."""
    body = answer.json()
    found = body.get(key) if isinstance(body, dict) else None
    if not isinstance(found, list):
        raise Failure("unavailable", f"the answer has no list of {key}: {answer.text[:300]}")
    return found


def checked(answer: Answer) -> Answer:
    """The answer if it is one of success; else a failure in the provider's own words."""
    if answer.is_success:
        return answer
    words = answer.text[:300]
    try:
        words = answer.json()["error"]
    except (Failure, KeyError, TypeError):
        pass
    raise Failure.from_answer(answer, words)


dns.solver(ExampleDns)
