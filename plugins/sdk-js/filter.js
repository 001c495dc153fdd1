// The exports of the world `filter`.
import connection from "witgate:plugin/connection@0.1.0";
import requestHost from "witgate:plugin/request@0.1.0";
import responseHost from "witgate:plugin/response@0.1.0";
import { decide } from "./decide.js";
import { Request, Response } from "./index.js";
import { start } from "./start.js";

const request = new Request(requestHost, connection);
const response = new Response(responseHost);
let make;
let instance;

/** Makes the plugin of this component; its module exports `make` as `default`. */
export function begin(plugin) {
  make = plugin;
}

export const plugin = {
  configure(config) {
    instance = start(make, config);
    const hooks = [];
    if (instance.onRequest) hooks.push("request");
    if (instance.onRequestBody) hooks.push(`request-body:${instance.bodyBytes}`);
    if (instance.onResponse) hooks.push("response");
    return hooks;
  },
};

export const filterHooks = {
  onRequest() {
    decide(instance.onRequest(request));
  },
  onRequestBody(prefix, isComplete) {
    decide(instance.onRequestBody(request, prefix, isComplete));
  },
  onResponse() {
    instance.onResponse(request, response);
  },
};
