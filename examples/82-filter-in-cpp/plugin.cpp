// A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of RFC 7518),
// and hands its claims to the application as fields. The application need not know about tokens, and cannot
// be told lies by clients.
#include "token.hpp"
#include "witgate.hpp"

#include <algorithm>
#include <array>
#include <chrono>

using namespace std::string_literals;
using witgate::Decision;

namespace {

bool equal_ignoring_case(std::string_view one, std::string_view other) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return std::ranges::equal(one, other, {}, lower, lower);
}

// Whether a name is one of a field that the gateway does not keep for itself.
bool can_be_set(std::string_view name) {
    static constexpr std::array<std::string_view, 9> owned = {"connection", "keep-alive",        "proxy-connection", "te",  "trailer",
                                                              "transfer-encoding", "upgrade", "content-length",   "host"};
    static constexpr std::string_view letters = "!#$%&'*+.^_`|~-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    bool is_owned = std::ranges::any_of(owned, [&](std::string_view one) { return equal_ignoring_case(one, name); });
    return !name.empty() && !is_owned && name.find_first_not_of(letters) == name.npos;
}

// A claim as the value of a field.
std::expected<std::string, std::string> as_text(witgate::Json claim) {
    const auto malformed = std::unexpected("malformed-claim");
    switch (claim.kind()) {
    case WG_TRUE:
        return "true";
    case WG_FALSE:
        return "false";
    case WG_NUMBER:
        if (claim.digits().find_first_of(".eE") != std::string_view::npos) return malformed;
        return std::string(claim.digits());
    case WG_STRING: {
        std::string_view text = *claim.text();
        bool has_control = std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
        if (has_control || text.starts_with(' ') || text.ends_with(' ')) return malformed;
        return std::string(text);
    }
    default:
        return malformed;
    }
}

// The text after the scheme of Bearer credentials.
std::optional<std::string_view> bearer(const witgate::Request &request) {
    std::string_view credentials = request.header("authorization").value_or("");
    std::size_t scheme = credentials.find(' ');
    if (scheme == credentials.npos || !equal_ignoring_case(credentials.substr(0, scheme), "bearer")) return std::nullopt;
    std::size_t begin = credentials.find_first_not_of(' ', scheme);
    if (begin == credentials.npos) return std::nullopt;
    std::string_view token = credentials.substr(begin);
    return token.substr(0, token.find(' '));
}

// 401 with the reason for the client (RFC 6750, section 3).
Decision refusal(const std::string &reason) {
    std::string challenge = reason == "missing-token" ? "Bearer" : "Bearer error=\"invalid_token\", error_description=\"" + reason + "\"";
    return witgate::Respond{401,
                            R"({"error":)" + witgate::quote(reason) + "}",
                            {{"content-type", "application/json"}, {"www-authenticate", challenge}}};
}

} // namespace

class JwtFilter {
  public:
    static std::expected<JwtFilter, std::string> configure(witgate::Json config) {
        JwtFilter made;
        auto checked = witgate::want(config, {
                                                 {"issuer", &made.issuer_},
                                                 {"audience", &made.audience_},
                                                 {"claims", &made.claims_},
                                                 {"leeway", &made.leeway_},
                                                 {"keep-token", &made.keep_token_},
                                             });
        if (!checked) return std::unexpected(checked.error());
        // Better now than at the first request.
        if (auto code = witgate::crypto::hmac("sha256", token::KEY, ""); !code) return std::unexpected("secrets.key: " + code.error());
        if (made.leeway_ < 0) return std::unexpected("config.leeway: seconds, zero or more");
        for (const auto &[claim, name] : made.claims_) {
            if (!can_be_set(name)) return std::unexpected("config.claims." + claim + ": `" + name + "` is no field that can be set");
        }
        return made;
    }

    Decision on_request(witgate::Request &request) {
        // Only the token may say who the client is.
        for (const auto &[claim, name] : claims_) request.remove_header(name);
        auto fields = admit(request);
        if (!fields) return refusal(fields.error());
        for (const auto &[name, value] : *fields) request.set_header(name, value);
        if (!keep_token_) request.remove_header("authorization");
        return witgate::Continue{};
    }

    void on_response(const witgate::Request &, witgate::Response &response) {
        // What one user may see must not come out of a cache for another.
        response.append_header("vary", "authorization");
    }

  private:
    // The fields that a good token gives the request.
    std::expected<witgate::Fields, std::string> admit(const witgate::Request &request) const {
        auto given = bearer(request);
        if (!given) return std::unexpected("missing-token");
        auto found = token::verify(*given);
        if (!found) return std::unexpected(found.error());
        if (auto checked = check(*found); !checked) return std::unexpected(checked.error());
        witgate::Fields fields;
        for (const auto &[claim, name] : claims_) {
            witgate::Json value = (*found)[claim];
            if (!value) continue;
            auto text = as_text(value);
            if (!text) return std::unexpected(text.error());
            fields.emplace_back(name, *text);
        }
        return fields;
    }

    // Times, issuer and audience (RFC 7519, section 4.1).
    std::expected<void, std::string> check(witgate::Json found) const {
        std::chrono::duration<double> clock = std::chrono::system_clock::now().time_since_epoch();
        double now = clock.count(), leeway = static_cast<double>(leeway_);
        witgate::Json end = found["exp"], start = found["nbf"];
        if ((end && !end.number()) || (start && !start.number())) return std::unexpected("malformed-claim");
        if (end && now >= *end.number() + leeway) return std::unexpected("expired");
        if (start && now < *start.number() - leeway) return std::unexpected("not-yet-valid");
        if (issuer_ && found["iss"].text() != *issuer_) return std::unexpected("wrong-issuer");
        if (!audience_ || found["aud"].text() == *audience_) return {};
        if (found["aud"].is_list()) {
            for (witgate::Json one : found["aud"]) {
                if (one.text() == *audience_) return {};
            }
        }
        return std::unexpected("wrong-audience");
    }

    std::optional<std::string> issuer_, audience_;
    std::map<std::string, std::string> claims_ = {{"sub", "x-user"}};
    std::int64_t leeway_ = 0;
    bool keep_token_ = false;
};

WITGATE_FILTER(JwtFilter)
