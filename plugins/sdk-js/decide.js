// Tells the gateway what was decided. In components alone: it imports from the gateway.
import host from "witgate:plugin/decision@0.1.0";
import { toBytes } from "./index.js";

export function decide(decision) {
  if (!decision) return;
  const { kind, status } = decision;
  if (kind === "upstream") host.toUpstream(decision.name);
  else if (kind === "redirect") host.redirect(status, decision.location);
  else {
    const body = typeof decision.body === "string" ? toBytes(decision.body) : decision.body;
    host.respond(status, Object.entries(decision.headers), body);
  }
}
