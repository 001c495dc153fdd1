#include "token.hpp"

namespace token {
namespace {

constexpr std::string_view ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// Base64url without padding (RFC 7515, appendix C).
std::optional<std::string> decode(std::string_view text) {
    if (text.size() % 4 == 1) return std::nullopt;
    std::string bytes;
    std::uint32_t bits = 0;
    int count = 0;
    for (char letter : text) {
        std::size_t place = ALPHABET.find(letter);
        if (place == ALPHABET.npos) return std::nullopt;
        bits = (bits << 6 | static_cast<std::uint32_t>(place)) & 0xffff;
        count += 6;
        if (count >= 8) bytes.push_back(static_cast<char>(bits >> (count -= 8)));
    }
    return bytes;
}

std::string encode(std::string_view bytes) {
    std::string text;
    std::uint32_t bits = 0;
    int count = 0;
    for (char byte : bytes) {
        bits = (bits << 8 | static_cast<std::uint8_t>(byte)) & 0xffff;
        for (count += 8; count >= 6;) text.push_back(ALPHABET[bits >> (count -= 6) & 63]);
    }
    if (count > 0) text.push_back(ALPHABET[bits << (6 - count) & 63]);
    return text;
}

std::optional<witgate::Json> map(std::string_view part) {
    std::optional<std::string> text = decode(part);
    witgate::Json json = text ? witgate::Json::read(*text) : witgate::Json();
    if (!json.is_map()) return std::nullopt;
    return json;
}

} // namespace

std::expected<witgate::Json, std::string> verify(std::string_view token) {
    const auto malformed = std::unexpected("malformed-token");
    std::size_t first = token.find('.'), last = token.rfind('.');
    if (first == last || token.find('.', first + 1) != last) return malformed;
    auto header = map(token.substr(0, first));
    if (!header) return malformed;
    // The token does not get to choose how it is checked: there is no `none` here.
    if ((*header)["alg"].text() != "HS256") return std::unexpected("unsupported-algorithm");
    auto signature = decode(token.substr(last + 1));
    if (!signature) return malformed;
    // The start has seen that the key is there.
    if (!witgate::crypto::verify_hmac("sha256", KEY, token.substr(0, last), *signature).value_or(false)) {
        return std::unexpected("bad-signature");
    }
    auto claims = map(token.substr(first + 1, last - first - 1));
    if (!claims) return malformed;
    return *claims;
}

std::string sign(const std::string &claims) {
    std::string text = encode(R"({"alg":"HS256"})") + "." + encode(claims);
    return text + "." + encode(witgate::crypto::hmac("sha256", KEY, text).value_or(""));
}

} // namespace token
