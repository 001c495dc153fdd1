/* The exports of the world `filter`. */
#include "abi.h"

__attribute__((weak)) void plugin_on_request(void) {}
__attribute__((weak)) void plugin_on_response(void) {}
__attribute__((weak)) void plugin_on_request_body(const uint8_t *prefix, size_t length, bool is_complete) {
    (void)prefix, (void)length, (void)is_complete;
}
__attribute__((weak)) const char *plugin_hooks(void) { return "request response"; }

const char *abi_hooks(void) { return plugin_hooks(); }

WG_EXPORT("filter-hooks", "on-request") void abi_on_request(void) {
    plugin_on_request();
    abi_end();
}

WG_EXPORT("filter-hooks", "on-request-body") void abi_on_request_body(const uint8_t *prefix, size_t length, bool is_complete) {
    plugin_on_request_body(prefix, length, is_complete);
    abi_end();
}

WG_EXPORT("filter-hooks", "on-response") void abi_on_response(void) {
    plugin_on_response();
    abi_end();
}
