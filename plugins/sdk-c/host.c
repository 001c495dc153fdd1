/* What the gateway offers: requests, responses, decisions, log, state, HTTP. */
#include "abi.h"

#include <stdlib.h>
#include <string.h>

/* A text with its length, for the imports. */
#define TEXT(text) text, strlen(text)

static const char *maybe(abi_maybe_text found) { return found.is_there ? abi_lift(found.text) : NULL; }

const char *wg_request_id(void) {
    abi_text text;
    abi_request_id(&text);
    return abi_lift(text);
}

const char *wg_request_method(void) {
    abi_text text;
    abi_request_method(&text);
    return abi_lift(text);
}

const char *wg_request_scheme(void) {
    abi_text text;
    abi_request_scheme(&text);
    return abi_lift(text);
}

const char *wg_request_authority(void) {
    abi_text text;
    abi_request_authority(&text);
    return abi_lift(text);
}

const char *wg_request_path(void) {
    abi_text text;
    abi_request_path(&text);
    return abi_lift(text);
}

const char *wg_client_address(void) {
    abi_text text;
    abi_client_address(&text);
    return abi_lift(text);
}

const char *wg_http_version(void) {
    abi_text text;
    abi_http_version(&text);
    return abi_lift(text);
}

const char *wg_response_source(void) {
    abi_text text;
    abi_response_source(&text);
    return abi_lift(text);
}

const char *wg_request_query(void) {
    abi_maybe_text found;
    abi_request_query(&found);
    return maybe(found);
}

const char *wg_tls_server_name(void) {
    abi_maybe_text found;
    abi_tls_server_name(&found);
    return maybe(found);
}

const char *wg_request_hostname(void) {
    const char *authority = wg_request_authority();
    const char *end = strrchr(authority, ':');
    if (end == NULL || authority[strlen(authority) - 1] == ']') return authority;
    return wg_copy(authority, (size_t)(end - authority));
}

const char *wg_request_header(const char *name) {
    abi_maybe_text found;
    abi_request_header(TEXT(name), &found);
    return maybe(found);
}

wg_texts wg_request_header_values(const char *name) {
    abi_texts found;
    abi_request_header_values(TEXT(name), &found);
    return abi_lift_texts(found);
}

wg_texts wg_request_header_names(void) {
    abi_texts found;
    abi_request_header_names(&found);
    return abi_lift_texts(found);
}

void wg_request_set_header(const char *name, const char *value) { abi_request_set_header(TEXT(name), TEXT(value)); }

void wg_request_append_header(const char *name, const char *value) { abi_request_append_header(TEXT(name), TEXT(value)); }

void wg_request_remove_header(const char *name) { abi_request_remove_header(TEXT(name)); }

const char *wg_response_header(const char *name) {
    abi_maybe_text found;
    abi_response_header(TEXT(name), &found);
    return maybe(found);
}

wg_texts wg_response_header_values(const char *name) {
    abi_texts found;
    abi_response_header_values(TEXT(name), &found);
    return abi_lift_texts(found);
}

wg_texts wg_response_header_names(void) {
    abi_texts found;
    abi_response_header_names(&found);
    return abi_lift_texts(found);
}

void wg_response_set_header(const char *name, const char *value) { abi_response_set_header(TEXT(name), TEXT(value)); }

void wg_response_append_header(const char *name, const char *value) { abi_response_append_header(TEXT(name), TEXT(value)); }

void wg_response_remove_header(const char *name) { abi_response_remove_header(TEXT(name)); }

void wg_request_set_method(const char *method) { abi_request_set_method(TEXT(method)); }

void wg_request_set_path(const char *path) { abi_request_set_path(TEXT(path)); }

void wg_request_set_authority(const char *authority) { abi_request_set_authority(TEXT(authority)); }

void wg_request_set_query(const char *query) {
    abi_text text = abi_lower(query);
    abi_request_set_query(query != NULL, text.data, text.length);
}

unsigned wg_response_status(void) { return abi_response_status(); }

void wg_response_set_status(unsigned status) { abi_response_set_status(status); }

void wg_to_upstream(const char *name) { abi_to_upstream(TEXT(name)); }

void wg_redirect(unsigned status, const char *location) { abi_redirect(status, TEXT(location)); }

void wg_respond(unsigned status, const char *body, wg_pairs headers) {
    wg_respond_bytes(status, TEXT(body), headers);
}

void wg_respond_bytes(unsigned status, const void *body, size_t length, wg_pairs headers) {
    abi_pairs list = abi_lower_pairs(headers);
    abi_respond(status, list.items, list.count, body, length);
}

void wg_log(const char *level, const char *message) { abi_log(TEXT(level), TEXT(message)); }

const char *wg_state_get(const char *key) {
    abi_maybe_text found;
    abi_state_get(TEXT(key), &found);
    return maybe(found);
}

const char *wg_state_set(const char *key, const char *value, unsigned life) {
    abi_maybe_text error;
    abi_state_set(TEXT(key), TEXT(value), life > 0, life, &error);
    return maybe(error);
}

void wg_state_remove(const char *key) { abi_state_remove(TEXT(key)); }

const char *wg_state_increment(const char *key, int64_t by, unsigned life, int64_t *value) {
    abi_count count;
    abi_state_increment(TEXT(key), by, life > 0, life, &count);
    if (count.is_error) return abi_lift(count.code);
    *value = count.value;
    return NULL;
}

const char *wg_hmac(const char *algorithm, const char *secret, wg_bytes data, wg_bytes *code) {
    abi_maybe_bytes made;
    abi_hmac(TEXT(algorithm), TEXT(secret), data.data, data.length, &made);
    if (made.is_error) return abi_lift(made.bytes_or_code);
    *code = (wg_bytes){(const uint8_t *)made.bytes_or_code.data, made.bytes_or_code.length};
    return NULL;
}

static const char *told(abi_verdict verdict, bool *is_good) {
    if (verdict.is_error) return abi_lift(verdict.code);
    *is_good = verdict.is_good;
    return NULL;
}

const char *wg_verify_hmac(const char *algorithm, const char *secret, wg_bytes data, wg_bytes code, bool *is_good) {
    abi_verdict verdict;
    abi_verify_hmac(TEXT(algorithm), TEXT(secret), data.data, data.length, code.data, code.length, &verdict);
    return told(verdict, is_good);
}

const char *wg_verify_signature(const char *algorithm, wg_bytes key, wg_bytes data, wg_bytes signature, bool *is_good) {
    abi_verdict verdict;
    abi_verify_signature(TEXT(algorithm), key.data, key.length, data.data, data.length, signature.data, signature.length, &verdict);
    return told(verdict, is_good);
}

static const wg_failure *failure(const char *code, const char *message, unsigned retry_after) {
    wg_failure *made = wg_alloc(sizeof(wg_failure));
    *made = (wg_failure){code, message, retry_after};
    return made;
}

const wg_failure *wg_send(wg_outgoing request, wg_answer *answer) {
    wg_pair *headers = wg_alloc((request.headers.count + 2) * sizeof(wg_pair));
    size_t count = request.headers.count;
    if (count > 0) memcpy(headers, request.headers.items, count * sizeof(wg_pair));
    if (request.json != NULL) headers[count++] = (wg_pair){"content-type", "application/json"};
    if (request.bearer != NULL) {
        headers[count++] = (wg_pair){"authorization", wg_format("Bearer %s", wg_secret(request.bearer))};
    }
    abi_pairs list = abi_lower_pairs((wg_pairs){headers, count});
    abi_text body = abi_lower(request.json);
    const char *method = request.method == NULL ? "GET" : request.method;
    abi_sent sent;
    abi_send(TEXT(method), TEXT(request.url), list.items, list.count, body.data, body.length, &sent);
    if (sent.is_error) {
        const char *code = abi_lift(sent.failure.code), *told = "unavailable";
        if (wg_equal(code, "denied")) told = "forbidden";
        if (wg_equal(code, "unknown-secret")) told = "auth";
        if (wg_equal(code, "bad-request")) told = "invalid";
        return failure(told, abi_lift(sent.failure.message), 0);
    }
    const char *text = abi_lift(sent.answer.body);
    *answer = (wg_answer){
        .status = sent.answer.status,
        .headers = abi_lift_pairs(sent.answer.headers),
        .body = text,
        .length = sent.answer.body.length,
        .json = wg_json_read(text, sent.answer.body.length),
    };
    return NULL;
}

bool wg_is_success(const wg_answer *answer) { return answer->status >= 200 && answer->status < 300; }

const wg_failure *wg_refused(const wg_answer *answer, const char *message) {
    static const struct {
        unsigned status;
        const char *code;
    } codes[] = {{401, "auth"}, {402, "account-not-entitled"}, {403, "forbidden"}, {404, "zone-not-found"}, {408, "unavailable"}, {409, "conflict"}, {412, "conflict"}, {425, "unavailable"}, {429, "rate-limited"}};
    const char *code = answer->status >= 400 && answer->status < 500 ? "invalid" : "unavailable";
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].status == answer->status) code = codes[i].code;
    }
    unsigned wait = 0;
    for (size_t i = 0; i < answer->headers.count; i++) {
        if (wg_equal(answer->headers.items[i].name, "retry-after")) {
            wait = (unsigned)strtoul(answer->headers.items[i].value, NULL, 10);
        }
    }
    bool is_worth = wg_equal(code, "rate-limited") || wg_equal(code, "unavailable");
    return failure(code, message, is_worth ? wait : 0);
}

const wg_failure *wg_zone_not_found(wg_texts candidates) {
    const char *message = "the account has no zone for any of:";
    for (size_t i = 0; i < candidates.count; i++) {
        message = wg_format("%s%s %s", message, i > 0 ? "," : "", candidates.items[i]);
    }
    return failure("zone-not-found", message, 0);
}

const char *wg_excerpt(const wg_answer *answer) {
    size_t length = answer->length < 300 ? answer->length : 300;
    /* Not within a character. */
    while (length < answer->length && length > 0 && (answer->body[length] & 0xc0) == 0x80) length--;
    return wg_copy(answer->body, length);
}

char *wg_secret(const char *name) { return wg_format("{{secret:%s}}", name); }
