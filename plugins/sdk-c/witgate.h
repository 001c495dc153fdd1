/* Write Witgate plugins in C (and C++).
 *
 * A plugin defines `plugin_configure` and the hooks of its world, which are declared below. `witgate
 * plugin build` compiles plugin.c and every other *.c of the folder, but for test_*.c, with this SDK.
 *
 * Texts are UTF-8 and end with a NUL; an absent one is NULL. All that a function returns, and all that
 * `wg_alloc` gives, lives until the hook returns, and what is made in `plugin_configure` lives as long as
 * the instance: there is nothing to free. A call that breaks a rule of the contract (an invalid name, an
 * upstream that does not exist) ends there, as `abort()` does.
 */
#ifndef WITGATE_H
#define WITGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Memory and texts ---- */

/* Zeroed memory that lives until the hook returns. */
void *wg_alloc(size_t size);
/* As printf, into a text. */
char *wg_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A copy of `length` bytes as a text. */
char *wg_copy(const char *text, size_t length);
/* Whether two texts are the same; two absent ones are. */
bool wg_equal(const char *a, const char *b);
/* Whether two texts are the same but for the case of ASCII letters. */
bool wg_equal_ignoring_case(const char *a, const char *b);
/* What is left of `text` without `suffix` at its end; NULL when it is not there. */
const char *wg_without_suffix(const char *text, const char *suffix);
/* Percent-encodes text for one segment of a path or one part of a query. */
char *wg_escape(const char *text);

typedef struct {
    const char **items;
    size_t count;
} wg_texts;

typedef struct {
    const char *name, *value;
} wg_pair;

typedef struct {
    const wg_pair *items;
    size_t count;
} wg_pairs;

/* A literal list: wg_respond(200, "", WG_PAIRS({"content-type", "text/plain"})). */
#define WG_PAIRS(...)                                                                              \
    ((wg_pairs){(const wg_pair[]){__VA_ARGS__}, sizeof((const wg_pair[]){__VA_ARGS__}) / sizeof(wg_pair)})
#define WG_NONE ((wg_pairs){NULL, 0})

/* ---- JSON ---- */

typedef enum { WG_NULL, WG_FALSE, WG_TRUE, WG_NUMBER, WG_STRING, WG_LIST, WG_MAP } wg_kind;

typedef struct wg_json {
    wg_kind kind;
    /* The name of a member of a map. */
    const char *key;
    /* The text of a string; of a number as it was written. */
    const char *text;
    double number;
    /* The first item of a list or member of a map, and the one after this. */
    const struct wg_json *first, *next;
} wg_json;

/* Reads JSON (RFC 8259); NULL when it is none. Strings with a NUL are refused. */
const wg_json *wg_json_read(const char *text, size_t length);
/* The member of a map; NULL when it is absent, null, or this is no map. */
const wg_json *wg_json_get(const wg_json *map, const char *key);
/* The text of a member that is a string; NULL for all else. */
const char *wg_json_text(const wg_json *map, const char *key);
/* Text as a JSON string, with its quotes. */
char *wg_json_quote(const char *text);

/* What a key of the configuration is, and where its value goes. */
typedef struct {
    const char *key;
    enum {
        WG_AS_TEXT,    /* const char * */
        WG_AS_INTEGER, /* int64_t */
        WG_AS_BOOLEAN, /* bool */
        WG_AS_TEXTS,   /* const wg_json *: a map of strings */
    } kind;
    bool is_required;
    void *to;
} wg_key;

/* Checks the configuration: these keys with these kinds, none else. Keys that are absent leave their
 * values alone. Returns NULL, or an error that names the key, for `plugin_configure` to return. */
const char *wg_want(const wg_json *config, const wg_key *keys, size_t count);

/* ---- The request in hand: routers and filters ---- */

const char *wg_request_id(void);
const char *wg_request_method(void);
/* "https" or "http". */
const char *wg_request_scheme(void);
/* The host in lower case, and the port when the client sent one. */
const char *wg_request_authority(void);
/* The host alone. */
const char *wg_request_hostname(void);
/* Percent-encoded, without the query. */
const char *wg_request_path(void);
/* Without its "?"; NULL when there is none. */
const char *wg_request_query(void);
/* The first value of a field; NULL when it is absent. */
const char *wg_request_header(const char *name);
wg_texts wg_request_header_values(const char *name);
wg_texts wg_request_header_names(void);
void wg_request_set_header(const char *name, const char *value);
void wg_request_append_header(const char *name, const char *value);
void wg_request_remove_header(const char *name);
void wg_request_set_method(const char *method);
void wg_request_set_path(const char *path);
/* NULL removes it. */
void wg_request_set_query(const char *query);
void wg_request_set_authority(const char *authority);

/* The client's IP address. */
const char *wg_client_address(void);
/* Such as "HTTP/2". */
const char *wg_http_version(void);
/* The name in the ClientHello; NULL without one. */
const char *wg_tls_server_name(void);

/* What becomes of the request; without any it goes on. */
/* Routers only: an upstream by its name in gateway.yaml. */
void wg_to_upstream(const char *name);
/* 301, 302, 303, 307 or 308. */
void wg_redirect(unsigned status, const char *location);
void wg_respond(unsigned status, const char *body, wg_pairs headers);
void wg_respond_bytes(unsigned status, const void *body, size_t length, wg_pairs headers);

/* ---- The response in hand: filters, in `plugin_on_response` ---- */

unsigned wg_response_status(void);
void wg_response_set_status(unsigned status);
/* "upstream", "plugin" or "gateway". */
const char *wg_response_source(void);
const char *wg_response_header(const char *name);
wg_texts wg_response_header_values(const char *name);
wg_texts wg_response_header_names(void);
void wg_response_set_header(const char *name, const char *value);
void wg_response_append_header(const char *name, const char *value);
void wg_response_remove_header(const char *name);

/* ---- Every world ---- */

/* A line for the gateway's log: "error", "warn", "info", "debug" or "trace". */
void wg_log(const char *level, const char *message);

/* The plugin's key-value store, shared by its instances. `life` is in seconds, 0 for no end. Functions
 * return NULL, or the code of an error: key-too-long, value-too-long, quota, not-a-counter. */
const char *wg_state_get(const char *key);
const char *wg_state_set(const char *key, const char *value, unsigned life);
void wg_state_remove(const char *key);
const char *wg_state_increment(const char *key, int64_t by, unsigned life, int64_t *value);

typedef struct {
    const uint8_t *data;
    size_t length;
} wg_bytes;

/* Keyed checks that the gateway makes, so that no key enters the plugin. `secret` is the name of one in the
 * plugin's stanza, which needs `grants: {hmac: [NAME]}`. `algorithm` is sha256, sha384 or sha512. Functions
 * return NULL, or the code of an error: unknown-algorithm, unknown-secret, denied, bad-key. */
const char *wg_hmac(const char *algorithm, const char *secret, wg_bytes data, wg_bytes *code);
/* Whether `code` is that HMAC, compared in constant time. */
const char *wg_verify_hmac(const char *algorithm, const char *secret, wg_bytes data, wg_bytes code, bool *is_good);
/* Whether `signature` is one of `data`. `algorithm` is a name of JSON Web Algorithms, such as RS256;
 * wit/crypto.wit has the form of each key. */
const char *wg_verify_signature(const char *algorithm, wg_bytes public_key, wg_bytes data, wg_bytes signature,
                                bool *is_good);

/* ---- HTTP: solvers ---- */

/* Why a call did not succeed: a code of wit/dns-solver.wit, words for the operator, and the seconds that
 * the provider asked to wait, or 0. */
typedef struct {
    const char *code, *message;
    unsigned retry_after;
} wg_failure;

typedef struct {
    /* NULL means GET. */
    const char *method;
    const char *url;
    wg_pairs headers;
    /* The body, as JSON; NULL for none. */
    const char *json;
    /* The NAME of a secret for `authorization: Bearer`; its value never enters the plugin. */
    const char *bearer;
} wg_outgoing;

typedef struct {
    unsigned status;
    wg_pairs headers;
    /* Ends with a NUL that is not counted. */
    const char *body;
    size_t length;
    /* The body as JSON; NULL when it is none. */
    const wg_json *json;
} wg_answer;

/* Sends a request within `grants` and waits for the whole answer; 4xx and 5xx are answers. Returns NULL,
 * or why there is no answer. */
const wg_failure *wg_send(wg_outgoing request, wg_answer *answer);
bool wg_is_success(const wg_answer *answer);
/* The failure that an answer's status stands for; `message` has the provider's own words. */
const wg_failure *wg_refused(const wg_answer *answer, const char *message);
const wg_failure *wg_zone_not_found(wg_texts candidates);
/* The beginning of an answer's body, for messages. */
const char *wg_excerpt(const wg_answer *answer);
/* The placeholder of a secret, for a header value, the query or the body. */
char *wg_secret(const char *name);

/* ---- What a plugin defines ---- */

/* Starts the plugin. `config` is NULL when the stanza has none. Returns NULL, or an error for the operator. */
const char *plugin_configure(const wg_json *config);

/* Routers. */
void plugin_route(void);

/* Filters. Those that are not defined do nothing. */
void plugin_on_request(void);
void plugin_on_request_body(const uint8_t *prefix, size_t length, bool is_complete);
void plugin_on_response(void);
/* The hooks that this configuration needs, in one text: "request", "request-body:BYTES", "response", or
 * "none". The default is "request response". */
const char *plugin_hooks(void);

/* Solvers. A zone has the provider's name and id of it. Functions return NULL when they succeed. */
typedef struct {
    const char *name, *handle;
} wg_zone;

/* Facts such as {"ttl-min", "60"}; may be left out. */
wg_pairs plugin_traits(void);
const wg_failure *plugin_find_zone(wg_texts candidates, wg_zone *zone);
const wg_failure *plugin_present(wg_zone zone, const char *name, wg_texts values, unsigned ttl,
                                 const char **handle);
/* Sets the seconds after which to ask again, or leaves 0 when the change is live; may be left out. */
const wg_failure *plugin_poll(wg_zone zone, const char *handle, unsigned *seconds);
const wg_failure *plugin_cleanup(wg_zone zone, const char *name, wg_texts values, const char *handle);

#ifdef __cplusplus
}
#endif
#endif
