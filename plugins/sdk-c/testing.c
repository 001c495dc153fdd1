/* The gateway's side of abi.h, outside of a component. */
#ifndef __wasm__
#include "testing.h"
#include "abi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *test_decision = "", *test_target, *test_body;
unsigned test_status;
test_answer (*test_server)(test_sent sent);

wg_bytes (*test_hmac)(const char *algorithm, const char *secret, wg_bytes data);
bool (*test_signature)(const char *algorithm, wg_bytes public_key, wg_bytes data, wg_bytes signature);

enum { FIELDS_MAX = 64, KEYS_MAX = 64 };

typedef struct {
    wg_pair fields[FIELDS_MAX];
    size_t count;
} head;

static head request, response;
static const char *method, *scheme, *authority, *path, *query;
static unsigned status;
static wg_pair state[KEYS_MAX];

void test_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    exit(1);
}

const char *test_configure(const char *json) {
    const char *error = plugin_configure(json == NULL ? NULL : wg_json_read(json, strlen(json)));
    abi_keep();
    return error;
}

void test_request(const char *url) {
    const char *host = strstr(url, "://");
    if (host == NULL) test_failed(__FILE__, __LINE__, "the URL is absolute");
    scheme = wg_copy(url, (size_t)(host - url));
    host += 3;
    size_t length = strcspn(host, "/?");
    authority = wg_copy(host, length);
    size_t end = strcspn(host + length, "?");
    path = end == 0 ? "/" : wg_copy(host + length, end);
    query = host[length + end] == '?' ? host + length + end + 1 : NULL;
    method = "GET";
    request.count = response.count = 0;
    test_decision = "";
}

void test_response(unsigned with) {
    status = with;
    response.count = 0;
}

static const char *copy(const char *text, size_t length) { return wg_copy(text, length); }

static void append(head *of, const char *name, size_t length, const char *value, size_t value_length) {
    if (of->count == FIELDS_MAX) test_failed(__FILE__, __LINE__, "not too many fields");
    for (size_t i = 0; i < value_length; i++) {
        if ((unsigned char)value[i] < ' ' && value[i] != '\t') {
            test_failed(__FILE__, __LINE__, "a value that the gateway takes");
        }
    }
    of->fields[of->count++] = (wg_pair){copy(name, length), copy(value, value_length)};
}

static void drop(head *of, const char *name, size_t length) {
    size_t left = 0;
    for (size_t i = 0; i < of->count; i++) {
        if (!wg_equal_ignoring_case(of->fields[i].name, copy(name, length))) of->fields[left++] = of->fields[i];
    }
    of->count = left;
}

static void find(const head *of, const char *name, size_t length, abi_texts *result) {
    abi_text *items = wg_alloc((of->count + 1) * sizeof(abi_text));
    size_t count = 0;
    for (size_t i = 0; i < of->count; i++) {
        if (name == NULL) {
            items[count++] = abi_lower(of->fields[i].name);
        } else if (wg_equal_ignoring_case(of->fields[i].name, copy(name, length))) {
            items[count++] = abi_lower(of->fields[i].value);
        }
    }
    *result = (abi_texts){items, count};
}

static void first(const head *of, const char *name, size_t length, abi_maybe_text *result) {
    abi_texts all;
    find(of, name, length, &all);
    *result = (abi_maybe_text){.is_there = all.count > 0};
    if (all.count > 0) result->text = all.items[0];
}

void abi_request_id(abi_text *result) { *result = abi_lower("test"); }
void abi_request_method(abi_text *result) { *result = abi_lower(method); }
void abi_request_scheme(abi_text *result) { *result = abi_lower(scheme); }
void abi_request_authority(abi_text *result) { *result = abi_lower(authority); }
void abi_request_path(abi_text *result) { *result = abi_lower(path); }
void abi_request_query(abi_maybe_text *result) { *result = (abi_maybe_text){query != NULL, abi_lower(query)}; }
void abi_request_header(const char *n, size_t l, abi_maybe_text *result) { first(&request, n, l, result); }
void abi_request_header_values(const char *n, size_t l, abi_texts *result) { find(&request, n, l, result); }
void abi_request_header_names(abi_texts *result) { find(&request, NULL, 0, result); }
void abi_request_set_header(const char *n, size_t l, const char *v, size_t vl) { drop(&request, n, l), append(&request, n, l, v, vl); }
void abi_request_append_header(const char *n, size_t l, const char *v, size_t vl) { append(&request, n, l, v, vl); }
void abi_request_remove_header(const char *n, size_t l) { drop(&request, n, l); }
void abi_request_set_method(const char *t, size_t l) { method = copy(t, l); }
void abi_request_set_path(const char *t, size_t l) { path = copy(t, l); }
void abi_request_set_query(bool has, const char *t, size_t l) { query = has ? copy(t, l) : NULL; }
void abi_request_set_authority(const char *t, size_t l) { authority = copy(t, l); }
void abi_client_address(abi_text *result) { *result = abi_lower("192.0.2.1"); }
void abi_http_version(abi_text *result) { *result = abi_lower("HTTP/2"); }
void abi_tls_server_name(abi_maybe_text *result) { *result = (abi_maybe_text){true, abi_lower(authority)}; }
uint32_t abi_response_status(void) { return status; }
void abi_response_set_status(uint32_t to) { status = to; }
void abi_response_source(abi_text *result) { *result = abi_lower("upstream"); }
void abi_response_header(const char *n, size_t l, abi_maybe_text *result) { first(&response, n, l, result); }
void abi_response_header_values(const char *n, size_t l, abi_texts *result) { find(&response, n, l, result); }
void abi_response_header_names(abi_texts *result) { find(&response, NULL, 0, result); }
void abi_response_set_header(const char *n, size_t l, const char *v, size_t vl) { drop(&response, n, l), append(&response, n, l, v, vl); }
void abi_response_append_header(const char *n, size_t l, const char *v, size_t vl) { append(&response, n, l, v, vl); }
void abi_response_remove_header(const char *n, size_t l) { drop(&response, n, l); }

void abi_to_upstream(const char *name, size_t length) {
    test_decision = "upstream";
    test_target = copy(name, length);
}

void abi_redirect(uint32_t with, const char *location, size_t length) {
    test_decision = "redirect";
    test_status = with;
    test_target = copy(location, length);
}

void abi_respond(uint32_t with, const abi_pair *items, size_t count, const void *body, size_t length) {
    (void)items, (void)count;
    test_decision = "respond";
    test_status = with;
    test_body = copy(body, length);
}

void abi_log(const char *level, size_t level_length, const char *message, size_t length) {
    fprintf(stderr, "%.*s: %.*s\n", (int)level_length, level, (int)length, message);
}

static wg_pair *slot(const char *key, size_t length) {
    const char *name = copy(key, length);
    for (size_t i = 0; i < KEYS_MAX; i++) {
        if (state[i].name == NULL) state[i].name = strdup(name);
        if (wg_equal(state[i].name, name)) return &state[i];
    }
    test_failed(__FILE__, __LINE__, "not too many keys");
    return NULL;
}

void abi_state_get(const char *key, size_t length, abi_maybe_text *result) {
    const char *value = slot(key, length)->value;
    *result = (abi_maybe_text){value != NULL, abi_lower(value)};
}

void abi_state_set(const char *key, size_t length, const char *value, size_t value_length, bool expires, uint32_t life, abi_maybe_text *error) {
    (void)expires, (void)life;
    slot(key, length)->value = strndup(value, value_length);
    *error = (abi_maybe_text){.is_there = false};
}

void abi_state_remove(const char *key, size_t length) { slot(key, length)->value = NULL; }

void abi_state_increment(const char *key, size_t length, int64_t by, bool expires, uint32_t life, abi_count *result) {
    (void)expires, (void)life;
    wg_pair *found = slot(key, length);
    int64_t value = by + (found->value == NULL ? 0 : strtoll(found->value, NULL, 10));
    found->value = strdup(wg_format("%lld", (long long)value));
    *result = (abi_count){.is_error = false, .value = value};
}

void abi_hmac(const char *a, size_t al, const char *s, size_t sl, const void *data, size_t length, abi_maybe_bytes *result) {
    *result = (abi_maybe_bytes){true, abi_lower("unknown-secret")};
    if (test_hmac == NULL) return;
    wg_bytes code = test_hmac(copy(a, al), copy(s, sl), (wg_bytes){data, length});
    *result = (abi_maybe_bytes){false, {(const char *)code.data, code.length}};
}

void abi_verify_hmac(const char *a, size_t al, const char *s, size_t sl, const void *data, size_t length, const void *code, size_t code_length, abi_verdict *result) {
    abi_maybe_bytes made;
    abi_hmac(a, al, s, sl, data, length, &made);
    *result = (abi_verdict){.is_error = made.is_error};
    if (made.is_error) {
        result->code = made.bytes_or_code;
    } else {
        result->is_good = made.bytes_or_code.length == code_length && memcmp(made.bytes_or_code.data, code, code_length) == 0;
    }
}

void abi_verify_signature(const char *a, size_t al, const void *key, size_t kl, const void *data, size_t length, const void *signature, size_t sl, abi_verdict *result) {
    bool is_good = test_signature != NULL && test_signature(copy(a, al), (wg_bytes){key, kl}, (wg_bytes){data, length}, (wg_bytes){signature, sl});
    *result = (abi_verdict){.is_error = false, .is_good = is_good};
}

void abi_send(const char *m, size_t ml, const char *url, size_t ul, const abi_pair *headers, size_t count, const void *body, size_t length, abi_sent *result) {
    test_sent sent = {copy(m, ml), copy(url, ul), NULL, length > 0 ? wg_json_read(body, length) : NULL};
    for (size_t i = 0; i < count; i++) {
        if (wg_equal(abi_lift(headers[i].name), "authorization")) sent.authorization = abi_lift(headers[i].value);
    }
    if (test_server == NULL) test_failed(__FILE__, __LINE__, "test_server answers requests");
    test_answer answer = test_server(sent);
    *result = (abi_sent){.is_error = false};
    result->answer.status = (uint16_t)answer.status;
    result->answer.body = abi_lower(answer.body);
}

/* A plugin has the hooks of one world; these are for the others. */
__attribute__((weak)) void plugin_route(void) {}
__attribute__((weak)) const wg_failure *plugin_find_zone(wg_texts c, wg_zone *zone) { (void)c, (void)zone; return NULL; }
__attribute__((weak)) const wg_failure *plugin_present(wg_zone z, const char *n, wg_texts v, unsigned t, const char **h) { (void)z, (void)n, (void)v, (void)t, (void)h; return NULL; }
__attribute__((weak)) const wg_failure *plugin_cleanup(wg_zone z, const char *n, wg_texts v, const char *h) { (void)z, (void)n, (void)v, (void)h; return NULL; }
#endif
