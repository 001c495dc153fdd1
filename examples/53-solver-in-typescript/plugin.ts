// A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API is
// the one of `examples/provider.py`, so that all of this can be tried on one machine.
//
// The gateway computes names and values, retries, waits and cleans up; here is only the API. The
// token is a placeholder: the gateway puts the secret in when it sends.
import { want } from "witgate";
import { Failure, escape, send } from "witgate/dns.js";
import type { Answer, Solver, Zone } from "witgate/dns.js";

/** A zone or a record. */
interface Entry {
  id: string;
  name: string;
  content?: string;
  status?: string;
}

export default function exampleDns(config: unknown): Solver {
  const found = want(config, "config", { api: "text", ttl: "integer" } as const, { ttl: undefined });
  if (!/^https?:\/\//.test(found.api)) {
    throw new Error("config.api: a URL such as https://api.provider.example/v1");
  }
  if (found.ttl !== undefined && found.ttl < 1) throw new Error("config.ttl: at least one second");
  const api = found.api.replace(/\/+$/, "");
  const call = (method: string, path: string, json?: unknown) => send(method, api + path, { json, bearer: "token" });

  return {
    traits: () => ({ "ttl-min": 30 }),

    findZone(candidates) {
      for (const name of candidates) {
        const answer = checked(call("GET", `/zones?name=${escape(name)}`));
        const zone = entries(answer, "zones").find((zone) => zone.name === name);
        if (zone) return { name, handle: zone.id };
      }
      throw Failure.zoneNotFound(candidates);
    },

    present(zone, name, values, ttl) {
      const ids: string[] = [];
      for (const content of values) {
        const record = { type: "TXT", name, content, ttl: found.ttl ?? ttl };
        const answer = call("POST", records(zone), record);
        // 409: it is there already, from a call that did not come through.
        if (answer.status !== 409) ids.push((checked(answer).json() as Entry).id);
      }
      // Records that were there already are found by their value when they are removed.
      return ids.length === values.length ? ids.join(" ") : "";
    },

    poll(zone, handle) {
      for (const id of words(handle)) {
        const record: Entry = checked(call("GET", `${records(zone)}/${escape(id)}`)).json();
        if (record.status === "pending") return 1;
      }
    },

    cleanup(zone, name, values, handle) {
      let ids = words(handle);
      if (ids.length === 0) {
        const answer = checked(call("GET", `${records(zone)}?type=TXT&name=${escape(name)}`));
        // Nobody else's: the name may hold more than ours.
        const ours = entries(answer, "records").filter((record) => values.includes(record.content ?? ""));
        ids = ours.map((record) => record.id);
      }
      for (const id of ids) {
        const answer = call("DELETE", `${records(zone)}/${escape(id)}`);
        // 404: it is gone already.
        if (answer.status !== 404) checked(answer);
      }
    },
  };
}

const records = (zone: Zone) => `/zones/${escape(zone.handle)}/records`;
const words = (text: string) => text.split(" ").filter((word) => word !== "");

/** A list in an answer. */
function entries(answer: Answer, key: string): Entry[] {
  const list = answer.json()?.[key];
  if (Array.isArray(list)) return list;
  throw new Failure("unavailable", `the answer has no list of ${key}: ${answer.text.slice(0, 300)}`);
}

/** The answer if it is one of success; else a failure in the provider's own words. */
function checked(answer: Answer): Answer {
  if (answer.isSuccess) return answer;
  let said = answer.text.slice(0, 300);
  try {
    said = answer.json()?.error ?? said;
  } catch {
    // Not from the API itself but from something in front of it.
  }
  throw Failure.fromAnswer(answer, said);
}
