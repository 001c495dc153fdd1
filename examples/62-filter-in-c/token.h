/* Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). */
#ifndef TOKEN_H
#define TOKEN_H

#include "witgate.h"

/* Reads a token. Returns NULL and its claims once its signature has been found good, else a word for the
 * client. */
const char *token_verify(const char *token, const char *key, const wg_json **claims);
/* A token with these claims, for tests. */
const char *token_sign(const char *claims, const char *key);
/* SHA-256 (FIPS 180-4). */
void token_sha256(const uint8_t *message, size_t length, uint8_t digest[32]);

#endif
