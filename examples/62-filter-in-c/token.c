#include "token.h"

#include <string.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turn(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void block(uint32_t hash[8], const uint8_t *bytes) {
    uint32_t w[64], v[8];
    for (int t = 0; t < 16; t++) {
        w[t] = (uint32_t)bytes[4 * t] << 24 | (uint32_t)bytes[4 * t + 1] << 16 | (uint32_t)bytes[4 * t + 2] << 8 | bytes[4 * t + 3];
    }
    for (int t = 16; t < 64; t++) {
        uint32_t x = w[t - 15], y = w[t - 2];
        w[t] = w[t - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + w[t - 7] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    memcpy(v, hash, sizeof v);
    for (int t = 0; t < 64; t++) {
        uint32_t a = v[0], e = v[4];
        uint32_t one = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + K[t] + w[t];
        uint32_t two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) hash[i] += v[i];
}

void token_sha256(const uint8_t *message, size_t length, uint8_t digest[32]) {
    uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t whole = length / 64 * 64, rest = length - whole;
    for (size_t at = 0; at < whole; at += 64) block(hash, message + at);
    uint8_t last[128] = {0};
    size_t size = rest < 56 ? 64 : 128;
    if (rest > 0) memcpy(last, message + whole, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++) last[size - 1 - (size_t)i] = (uint8_t)((uint64_t)length * 8 >> 8 * i);
    for (size_t at = 0; at < size; at += 64) block(hash, last + at);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(hash[i / 4] >> (24 - 8 * (i % 4)));
}

/* HMAC (RFC 2104). */
static void mac(const char *text, size_t length, const char *key, uint8_t digest[32]) {
    uint8_t pad[64] = {0};
    size_t key_length = strlen(key);
    if (key_length > 64) {
        token_sha256((const uint8_t *)key, key_length, pad);
    } else {
        memcpy(pad, key, key_length);
    }
    uint8_t *inner = wg_alloc(64 + length), outer[96];
    for (int i = 0; i < 64; i++) {
        inner[i] = pad[i] ^ 0x36;
        outer[i] = pad[i] ^ 0x5c;
    }
    memcpy(inner + 64, text, length);
    token_sha256(inner, 64 + length, outer + 64);
    token_sha256(outer, sizeof outer, digest);
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

const char *token_verify(const char *token, const char *key, const wg_json **claims) {
    const char *body = strchr(token, '.'), *signature = body == NULL ? NULL : strchr(body + 1, '.');
    if (signature == NULL || strchr(signature + 1, '.') != NULL) return "malformed-token";
    const wg_json *header = map(token, (size_t)(body - token));
    if (header == NULL) return "malformed-token";
    /* The token does not get to choose how it is checked: there is no `none` here. */
    if (!wg_equal(wg_json_text(header, "alg"), "HS256")) return "unsupported-algorithm";
    size_t length;
    const char *given = decode(signature + 1, strlen(signature + 1), &length);
    if (given == NULL) return "malformed-token";
    uint8_t expected[32], difference = length != sizeof expected;
    mac(token, (size_t)(signature - token), key, expected);
    /* Takes the same time whatever differs. */
    for (size_t i = 0; i < sizeof expected && i < length; i++) difference |= expected[i] ^ (uint8_t)given[i];
    if (difference != 0) return "bad-signature";
    *claims = map(body + 1, (size_t)(signature - body - 1));
    return *claims == NULL ? "malformed-token" : NULL;
}

const char *token_sign(const char *claims, const char *key) {
    const char *header = "{\"alg\":\"HS256\"}";
    const char *text = wg_format("%s.%s", encode(header, strlen(header)), encode(claims, strlen(claims)));
    uint8_t signature[32];
    mac(text, strlen(text), key, signature);
    return wg_format("%s.%s", text, encode(signature, sizeof signature));
}
