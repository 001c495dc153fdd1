#include "witgate.h"

#include <string.h>

const char *plugin_configure(const wg_json *config) {
    (void)config;
    return NULL;
}

const char *plugin_hooks(void) { return "request request-body:4 response"; }

static wg_bytes bytes(const char *text) { return (wg_bytes){(const uint8_t *)text, strlen(text)}; }

static const char *truth(bool is_true) { return is_true ? "true" : "false"; }

static const char *state(void) {
    int64_t n = 0;
    const char *error = wg_state_increment("n", 1, 60, &n);
    if (error == NULL) error = wg_state_set("k", wg_format("v%lld", (long long)n), 0);
    return error != NULL ? error : wg_format("n=%lld k=%s", (long long)n, wg_state_get("k"));
}

static const char *crypto(void) {
    wg_bytes code;
    bool good = false, bad = true;
    const char *error = wg_hmac("sha256", "key", bytes("data"), &code), *text = "";
    if (error == NULL) error = wg_verify_hmac("sha256", "key", bytes("data"), code, &good);
    if (error == NULL) error = wg_verify_hmac("sha256", "key", bytes("else"), code, &bad);
    if (error != NULL) return error;
    for (size_t i = 0; i < code.length; i++) text = wg_format("%s%02x", text, code.data[i]);
    text = wg_format("%s %s %s", text, truth(good), truth(bad));
    error = wg_verify_signature("none", bytes(""), bytes(""), bytes(""), &bad);
    return wg_format("%s %s", text, error == NULL ? "none" : error);
}

void plugin_on_request(void) {
    const char *path = wg_request_path(), *body = NULL;
    if (wg_equal(path, "/state")) body = state();
    if (wg_equal(path, "/crypto")) body = crypto();
    if (wg_equal(path, "/connection")) body = wg_format("%s %s", wg_client_address(), wg_http_version());
    if (body != NULL) {
        wg_respond(200, body, WG_NONE);
    } else {
        wg_log("warn", "the probe speaks");
    }
}

void plugin_on_request_body(const uint8_t *prefix, size_t length, bool is_complete) {
    if (!wg_equal(wg_request_path(), "/body")) return;
    wg_respond(200, wg_format("prefix=%.*s %s", (int)length, (const char *)prefix, truth(is_complete)), WG_NONE);
}

void plugin_on_response(void) { wg_response_set_header("x-status", wg_format("%u", wg_response_status())); }
