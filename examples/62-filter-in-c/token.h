/* Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The gateway checks them: the key
 * is a secret that stays there. */
#ifndef TOKEN_H
#define TOKEN_H

#include "witgate.h"

/* Reads a token. Returns NULL and its claims once its signature has been found good, else a word for the
 * client. */
const char *token_verify(const char *token, const wg_json **claims);
/* A token with these claims, for tests. */
const char *token_sign(const char *claims);
/* NULL when there is a key, else the code of what is wrong with it. */
const char *token_check_key(void);

#endif
