// The exports of the world `filter`.
import requestHost from "witgate:plugin/request@0.1.0";
import responseHost from "witgate:plugin/response@0.1.0";
import make from "../../plugin.js";
import { decide } from "./decide.js";
import { Request, Response } from "./index.js";
import { start } from "./start.js";

const request = new Request(requestHost);
const response = new Response(responseHost);
let instance;

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
