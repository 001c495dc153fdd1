// Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The gateway checks them: the
// key is a secret that stays there.
#pragma once

#include "witgate.hpp"

namespace token {

// The name of the secret that tokens are signed with.
inline const std::string KEY = "key";

// The claims of a token, once its signature has been found good; else a word for the client.
std::expected<witgate::Json, std::string> verify(std::string_view token);

// A token with these claims, for tests.
std::string sign(const std::string &claims);

} // namespace token
