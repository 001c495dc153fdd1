/* The border to the gateway: values as the canonical ABI of the component model lays them out, which on
 * wasm32 is how C lays these out. Outside of a component, testing.c has the functions. */
#ifndef WITGATE_ABI_H
#define WITGATE_ABI_H

#include "witgate.h"

#ifdef __wasm__
#define WG_IMPORT(interface, name)                                                                 \
    __attribute__((import_module("witgate:plugin/" interface "@0.1.0"), import_name(name))) extern
#define WG_EXPORT(interface, name) __attribute__((export_name("witgate:plugin/" interface "@0.1.0#" name)))
#define WG_AFTER(interface, name)                                                                  \
    __attribute__((export_name("cabi_post_witgate:plugin/" interface "@0.1.0#" name)))
#else
#define WG_IMPORT(interface, name) extern
#define WG_EXPORT(interface, name)
#define WG_AFTER(interface, name)
#endif

typedef struct {
    const char *data;
    size_t length;
} abi_text;

typedef struct {
    bool is_there;
    abi_text text;
} abi_maybe_text;

typedef struct {
    const abi_text *items;
    size_t count;
} abi_texts;

typedef struct {
    abi_text name, value;
} abi_pair;

typedef struct {
    const abi_pair *items;
    size_t count;
} abi_pairs;

typedef struct {
    bool is_error;
    union {
        struct {
            uint16_t status;
            abi_pairs headers;
            abi_text body;
        } answer;
        struct {
            abi_text code, message;
        } failure;
    };
} abi_sent;

typedef struct {
    bool is_error;
    union {
        int64_t value;
        abi_text code;
    };
} abi_count;

/* Bytes, or the code of an error. */
typedef struct {
    bool is_error;
    abi_text bytes_or_code;
} abi_maybe_bytes;

typedef struct {
    bool is_error;
    union {
        bool is_good;
        abi_text code;
    };
} abi_verdict;

WG_IMPORT("request", "id") void abi_request_id(abi_text *);
WG_IMPORT("request", "method") void abi_request_method(abi_text *);
WG_IMPORT("request", "scheme") void abi_request_scheme(abi_text *);
WG_IMPORT("request", "authority") void abi_request_authority(abi_text *);
WG_IMPORT("request", "path") void abi_request_path(abi_text *);
WG_IMPORT("request", "query") void abi_request_query(abi_maybe_text *);
WG_IMPORT("request", "header") void abi_request_header(const char *, size_t, abi_maybe_text *);
WG_IMPORT("request", "header-values") void abi_request_header_values(const char *, size_t, abi_texts *);
WG_IMPORT("request", "header-names") void abi_request_header_names(abi_texts *);
WG_IMPORT("request", "set-header") void abi_request_set_header(const char *, size_t, const char *, size_t);
WG_IMPORT("request", "append-header") void abi_request_append_header(const char *, size_t, const char *, size_t);
WG_IMPORT("request", "remove-header") void abi_request_remove_header(const char *, size_t);
WG_IMPORT("request", "set-method") void abi_request_set_method(const char *, size_t);
WG_IMPORT("request", "set-path") void abi_request_set_path(const char *, size_t);
WG_IMPORT("request", "set-query") void abi_request_set_query(bool, const char *, size_t);
WG_IMPORT("request", "set-authority") void abi_request_set_authority(const char *, size_t);
WG_IMPORT("connection", "client-address") void abi_client_address(abi_text *);
WG_IMPORT("connection", "http-version") void abi_http_version(abi_text *);
WG_IMPORT("connection", "tls-server-name") void abi_tls_server_name(abi_maybe_text *);
WG_IMPORT("decision", "to-upstream") void abi_to_upstream(const char *, size_t);
WG_IMPORT("decision", "redirect") void abi_redirect(uint32_t, const char *, size_t);
WG_IMPORT("decision", "respond") void abi_respond(uint32_t, const abi_pair *, size_t, const void *, size_t);
WG_IMPORT("response", "status") uint32_t abi_response_status(void);
WG_IMPORT("response", "set-status") void abi_response_set_status(uint32_t);
WG_IMPORT("response", "source") void abi_response_source(abi_text *);
WG_IMPORT("response", "header") void abi_response_header(const char *, size_t, abi_maybe_text *);
WG_IMPORT("response", "header-values") void abi_response_header_values(const char *, size_t, abi_texts *);
WG_IMPORT("response", "header-names") void abi_response_header_names(abi_texts *);
WG_IMPORT("response", "set-header") void abi_response_set_header(const char *, size_t, const char *, size_t);
WG_IMPORT("response", "append-header") void abi_response_append_header(const char *, size_t, const char *, size_t);
WG_IMPORT("response", "remove-header") void abi_response_remove_header(const char *, size_t);
WG_IMPORT("log", "write") void abi_log(const char *, size_t, const char *, size_t);
WG_IMPORT("state", "get") void abi_state_get(const char *, size_t, abi_maybe_text *);
WG_IMPORT("state", "set") void abi_state_set(const char *, size_t, const char *, size_t, bool, uint32_t, abi_maybe_text *);
WG_IMPORT("state", "remove") void abi_state_remove(const char *, size_t);
WG_IMPORT("state", "increment") void abi_state_increment(const char *, size_t, int64_t, bool, uint32_t, abi_count *);
WG_IMPORT("crypto", "hmac") void abi_hmac(const char *, size_t, const char *, size_t, const void *, size_t, abi_maybe_bytes *);
WG_IMPORT("crypto", "verify-hmac") void abi_verify_hmac(const char *, size_t, const char *, size_t, const void *, size_t, const void *, size_t, abi_verdict *);
WG_IMPORT("crypto", "verify-signature") void abi_verify_signature(const char *, size_t, const void *, size_t, const void *, size_t, const void *, size_t, abi_verdict *);
WG_IMPORT("http", "send") void abi_send(const char *, size_t, const char *, size_t, const abi_pair *, size_t, const void *, size_t, abi_sent *);

/* A text as it crosses the border. */
abi_text abi_lower(const char *text);
abi_texts abi_lower_texts(wg_texts texts);
abi_pairs abi_lower_pairs(wg_pairs pairs);
/* What has crossed it; the gateway's blocks end with a NUL. */
const char *abi_lift(abi_text text);
wg_texts abi_lift_texts(abi_texts texts);
wg_pairs abi_lift_pairs(abi_pairs pairs);
/* The end of a call: lets go of all that was made in it. */
void abi_end(void);
/* The end of `plugin_configure`: what was made stays. */
void abi_keep(void);

#endif
