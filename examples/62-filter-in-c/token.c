#include "token.h"

#include <string.h>

/* The name of the secret that tokens are signed with. */
static const char key[] = "key";

const char *token_check_key(void) {
    wg_bytes code;
    return wg_hmac("sha256", key, (wg_bytes){(const uint8_t *)"", 0}, &code);
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Base64url without padding (RFC 7515, appendix C); NULL when it is none. */
static const char *decode(const char *text, size_t length, size_t *decoded) {
    char *bytes = wg_alloc(length + 1), *to = bytes;
    uint32_t bits = 0;
    int count = 0;
    if (length % 4 == 1) return NULL;
    for (size_t i = 0; i < length; i++) {
        const char *place = text[i] == 0 ? NULL : strchr(alphabet, text[i]);
        if (place == NULL) return NULL;
        bits = (bits << 6 | (uint32_t)(place - alphabet)) & 0xffff;
        count += 6;
        if (count >= 8) *to++ = (char)(bits >> (count -= 8));
    }
    *decoded = (size_t)(to - bytes);
    return bytes;
}

static const char *encode(const void *bytes, size_t length) {
    const uint8_t *from = bytes;
    char *text = wg_alloc(length * 4 / 3 + 4), *to = text;
    for (size_t at = 0; at < length; at += 3) {
        uint32_t three = (uint32_t)from[at] << 16 | (at + 1 < length ? (uint32_t)from[at + 1] << 8 : 0) | (at + 2 < length ? from[at + 2] : 0);
        for (size_t sextet = 0; sextet < 4 && sextet <= length - at; sextet++) *to++ = alphabet[three >> (18 - 6 * sextet) & 63];
    }
    return text;
}

static const wg_json *map(const char *part, size_t length) {
    size_t decoded;
    const char *text = decode(part, length, &decoded);
    const wg_json *json = text == NULL ? NULL : wg_json_read(text, decoded);
    return json != NULL && json->kind == WG_MAP ? json : NULL;
}

const char *token_verify(const char *token, const wg_json **claims) {
    const char *body = strchr(token, '.'), *signature = body == NULL ? NULL : strchr(body + 1, '.');
    if (signature == NULL || strchr(signature + 1, '.') != NULL) return "malformed-token";
    const wg_json *header = map(token, (size_t)(body - token));
    if (header == NULL) return "malformed-token";
    /* The token does not get to choose how it is checked: there is no `none` here. */
    if (!wg_equal(wg_json_text(header, "alg"), "HS256")) return "unsupported-algorithm";
    size_t length;
    const char *given = decode(signature + 1, strlen(signature + 1), &length);
    if (given == NULL) return "malformed-token";
    wg_bytes signed_part = {(const uint8_t *)token, (size_t)(signature - token)};
    bool is_good = false;
    const char *failure = wg_verify_hmac("sha256", key, signed_part, (wg_bytes){(const uint8_t *)given, length}, &is_good);
    /* The start has seen that the key is there. */
    if (failure != NULL || !is_good) return "bad-signature";
    *claims = map(body + 1, (size_t)(signature - body - 1));
    return *claims == NULL ? "malformed-token" : NULL;
}

const char *token_sign(const char *claims) {
    const char *header = "{\"alg\":\"HS256\"}";
    const char *text = wg_format("%s.%s", encode(header, strlen(header)), encode(claims, strlen(claims)));
    wg_bytes signature = {NULL, 0};
    if (wg_hmac("sha256", key, (wg_bytes){(const uint8_t *)text, strlen(text)}, &signature) != NULL) return "";
    return wg_format("%s.%s", text, encode(signature.data, signature.length));
}
