/* A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of RFC 7518),
 * and hands its claims to the application as fields. The application need not know about tokens, and cannot
 * be told lies by clients. */
#include "token.h"
#include "witgate.h"

#include <string.h>
#include <time.h>

static const char *issuer, *audience;
static const wg_json *claims;
static int64_t leeway;
static bool keep_token;

/* Whether a name is one of a field that the gateway does not keep for itself. */
static bool can_be_set(const char *name) {
    static const char *const owned[] = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host"};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        if (wg_equal_ignoring_case(name, owned[i])) return false;
    }
    static const char letters[] = "!#$%&'*+.^_`|~-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    return name[0] != 0 && name[strspn(name, letters)] == 0;
}

const char *plugin_configure(const wg_json *config) {
    const wg_key keys[] = {
        {"issuer", WG_AS_TEXT, false, &issuer},
        {"audience", WG_AS_TEXT, false, &audience},
        {"claims", WG_AS_TEXTS, false, &claims},
        {"leeway", WG_AS_INTEGER, false, &leeway},
        {"keep-token", WG_AS_BOOLEAN, false, &keep_token},
    };
    const char *error = wg_want(config, keys, sizeof keys / sizeof keys[0]);
    if (error != NULL) return error;
    /* Better now than at the first request. */
    const char *code = token_check_key();
    if (code != NULL) return wg_format("secrets.key: %s", code);
    if (leeway < 0) return "config.leeway: seconds, zero or more";
    const char *subject = "{\"sub\":\"x-user\"}";
    if (claims == NULL) claims = wg_json_read(subject, strlen(subject));
    for (const wg_json *claim = claims->first; claim != NULL; claim = claim->next) {
        if (!can_be_set(claim->text)) {
            return wg_format("config.claims.%s: `%s` is no field that can be set", claim->key, claim->text);
        }
    }
    return NULL;
}

/* Times, issuer and audience (RFC 7519, section 4.1). */
static const char *check(const wg_json *found) {
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    double now = (double)clock.tv_sec + (double)clock.tv_nsec / 1e9;
    const wg_json *end = wg_json_get(found, "exp"), *start = wg_json_get(found, "nbf");
    if ((end != NULL && end->kind != WG_NUMBER) || (start != NULL && start->kind != WG_NUMBER)) return "malformed-claim";
    if (end != NULL && now >= end->number + (double)leeway) return "expired";
    if (start != NULL && now < start->number - (double)leeway) return "not-yet-valid";
    if (issuer != NULL && !wg_equal(wg_json_text(found, "iss"), issuer)) return "wrong-issuer";
    if (audience == NULL || wg_equal(wg_json_text(found, "aud"), audience)) return NULL;
    const wg_json *several = wg_json_get(found, "aud");
    for (const wg_json *one = several == NULL ? NULL : several->first; one != NULL; one = one->next) {
        if (several->kind == WG_LIST && one->kind == WG_STRING && wg_equal(one->text, audience)) return NULL;
    }
    return "wrong-audience";
}

/* A claim as the value of a field; NULL when it cannot be one. */
static const char *as_text(const wg_json *claim) {
    switch (claim->kind) {
    case WG_TRUE:
        return "true";
    case WG_FALSE:
        return "false";
    case WG_NUMBER:
        return strpbrk(claim->text, ".eE") == NULL ? claim->text : NULL;
    case WG_STRING:
        for (const char *at = claim->text; *at; at++) {
            if ((unsigned char)*at < ' ' || *at == 0x7f) return NULL;
        }
        if (claim->text[0] == ' ' || (claim->text[0] && claim->text[strlen(claim->text) - 1] == ' ')) return NULL;
        return claim->text;
    default:
        return NULL;
    }
}

/* The text after the scheme of Bearer credentials; NULL when there are none. */
static const char *bearer(void) {
    const char *credentials = wg_request_header("authorization");
    if (credentials == NULL) return NULL;
    size_t scheme = strcspn(credentials, " ");
    if (!wg_equal_ignoring_case(wg_copy(credentials, scheme), "bearer")) return NULL;
    const char *token = credentials + scheme + strspn(credentials + scheme, " ");
    return token[0] == 0 ? NULL : wg_copy(token, strcspn(token, " "));
}

/* Gives the request the fields of a good token; else returns the reason. */
static const char *admit(void) {
    const char *token = bearer();
    if (token == NULL) return "missing-token";
    const wg_json *found;
    const char *reason = token_verify(token, &found);
    if (reason == NULL) reason = check(found);
    if (reason != NULL) return reason;
    for (const wg_json *claim = claims->first; claim != NULL; claim = claim->next) {
        const wg_json *value = wg_json_get(found, claim->key);
        if (value != NULL && as_text(value) == NULL) return "malformed-claim";
    }
    for (const wg_json *claim = claims->first; claim != NULL; claim = claim->next) {
        const wg_json *value = wg_json_get(found, claim->key);
        if (value != NULL) wg_request_set_header(claim->text, as_text(value));
    }
    return NULL;
}

void plugin_on_request(void) {
    /* Only the token may say who the client is. */
    for (const wg_json *claim = claims->first; claim != NULL; claim = claim->next) wg_request_remove_header(claim->text);
    const char *reason = admit();
    if (reason == NULL) {
        if (!keep_token) wg_request_remove_header("authorization");
        return;
    }
    /* RFC 6750, section 3. */
    const char *challenge = wg_equal(reason, "missing-token")
        ? "Bearer"
        : wg_format("Bearer error=\"invalid_token\", error_description=\"%s\"", reason);
    wg_respond(401, wg_format("{\"error\":%s}", wg_json_quote(reason)),
               WG_PAIRS({"content-type", "application/json"}, {"www-authenticate", challenge}));
}

void plugin_on_response(void) {
    /* What one user may see must not come out of a cache for another. */
    wg_response_append_header("vary", "authorization");
}
