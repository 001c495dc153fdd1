/* Write Witgate plugins in C++23: this header over the SDK of C, whose witgate.h has the rest.
 *
 * A plugin is a class with a static `configure` and the hooks of its world, named by WITGATE_ROUTER,
 * WITGATE_FILTER or WITGATE_DNS_SOLVER. `witgate plugin build` compiles plugin.cpp and every other *.cpp of
 * the folder, but for test_*.cpp. There are no exceptions in a component: what can fail returns
 * `std::expected`.
 *
 * Views (`std::string_view`, `Json`) of a request, a response or an answer live until the hook returns;
 * those of the configuration as long as the plugin.
 */
#ifndef WITGATE_HPP
#define WITGATE_HPP

#include "witgate.h"

#include <cstdint>
#include <expected>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace witgate {

/* Names and values, in order. */
using Fields = std::vector<std::pair<std::string, std::string>>;

/* ---- JSON ---- */

/* A value of JSON, or nothing. */
class Json {
  public:
    class Iterator {
      public:
        explicit Iterator(const wg_json *at) : at_(at) {}
        Json operator*() const { return Json(at_); }
        Iterator &operator++() {
            at_ = at_->next;
            return *this;
        }
        bool operator==(const Iterator &other) const = default;

      private:
        const wg_json *at_;
    };

    Json() = default;
    explicit Json(const wg_json *value) : value_(value) {}
    static Json read(std::string_view text) { return Json(wg_json_read(text.data(), text.size())); }

    explicit operator bool() const { return value_ != nullptr; }
    wg_kind kind() const { return value_ == nullptr ? WG_NULL : value_->kind; }
    bool is_list() const { return kind() == WG_LIST; }
    bool is_map() const { return kind() == WG_MAP; }
    /* The member of a map; nothing when it is absent or null. */
    Json operator[](const std::string &key) const { return Json(value_ == nullptr ? nullptr : wg_json_get(value_, key.c_str())); }
    /* The text of a string. */
    std::optional<std::string_view> text() const {
        if (kind() != WG_STRING) return std::nullopt;
        return value_->text;
    }
    std::optional<double> number() const {
        if (kind() != WG_NUMBER) return std::nullopt;
        return value_->number;
    }
    /* A number as it was written. */
    std::string_view digits() const { return kind() == WG_NUMBER ? value_->text : std::string_view(); }
    /* The name of a member of a map. */
    std::string_view key() const { return value_ == nullptr || value_->key == nullptr ? std::string_view() : value_->key; }
    /* The items of a list and the members of a map. */
    Iterator begin() const { return Iterator(is_list() || is_map() ? value_->first : nullptr); }
    Iterator end() const { return Iterator(nullptr); }
    const wg_json *get() const { return value_; }

  private:
    const wg_json *value_ = nullptr;
};

/* Text as a JSON string, with its quotes. */
inline std::string quote(const std::string &text) { return wg_json_quote(text.c_str()); }

/* A key of the configuration and where its value goes: what it points to says its kind. */
struct Key {
    const char *name;
    std::variant<std::string *, std::optional<std::string> *, std::int64_t *, bool *, std::map<std::string, std::string> *> to;
    bool is_required = false;
};

/* Checks the configuration: these keys with these kinds, none else. Keys that are absent leave their values
 * alone. An error names the key, for `configure` to return. */
inline std::expected<void, std::string> want(Json config, std::initializer_list<Key> keys) {
    struct Found {
        const char *text = nullptr;
        const wg_json *texts = nullptr;
    };
    std::vector<Found> found(keys.size());
    std::vector<wg_key> wanted;
    for (const Key &key : keys) {
        Found &into = found[wanted.size()];
        wg_key one = {key.name, wg_key{}.kind, key.is_required, nullptr};
        if (auto *integer = std::get_if<std::int64_t *>(&key.to)) {
            one.kind = wg_key::WG_AS_INTEGER, one.to = *integer;
        } else if (auto *flag = std::get_if<bool *>(&key.to)) {
            one.kind = wg_key::WG_AS_BOOLEAN, one.to = *flag;
        } else if (std::holds_alternative<std::map<std::string, std::string> *>(key.to)) {
            one.kind = wg_key::WG_AS_TEXTS, one.to = &into.texts;
        } else {
            one.kind = wg_key::WG_AS_TEXT, one.to = &into.text;
        }
        wanted.push_back(one);
    }
    if (const char *error = wg_want(config.get(), wanted.data(), wanted.size())) return std::unexpected(error);
    std::size_t at = 0;
    for (const Key &key : keys) {
        const Found &from = found[at++];
        if (from.text != nullptr) {
            if (auto *text = std::get_if<std::string *>(&key.to)) **text = from.text;
            if (auto *text = std::get_if<std::optional<std::string> *>(&key.to)) **text = from.text;
        }
        if (auto *texts = std::get_if<std::map<std::string, std::string> *>(&key.to); texts != nullptr && from.texts != nullptr) {
            (*texts)->clear();
            for (Json one : Json(from.texts)) (*texts)->emplace(one.key(), one.text().value_or(""));
        }
    }
    return {};
}

namespace detail {

inline std::optional<std::string_view> maybe(const char *text) {
    if (text == nullptr) return std::nullopt;
    return text;
}

inline std::vector<std::string_view> several(wg_texts texts) { return {texts.items, texts.items + texts.count}; }

inline std::vector<wg_pair> pairs(const Fields &fields) {
    std::vector<wg_pair> pairs;
    for (const auto &[name, value] : fields) pairs.push_back({name.c_str(), value.c_str()});
    return pairs;
}

inline wg_bytes bytes(std::string_view data) { return {reinterpret_cast<const std::uint8_t *>(data.data()), data.size()}; }

} // namespace detail

/* ---- The exchange in hand ---- */

/* The request. */
class Request {
  public:
    std::string_view id() const { return wg_request_id(); }
    std::string_view method() const { return wg_request_method(); }
    /* "https" or "http". */
    std::string_view scheme() const { return wg_request_scheme(); }
    /* The host in lower case, and the port when the client sent one. */
    std::string_view authority() const { return wg_request_authority(); }
    /* The host alone. */
    std::string_view hostname() const { return wg_request_hostname(); }
    /* Percent-encoded, without the query. */
    std::string_view path() const { return wg_request_path(); }
    /* Without its "?". */
    std::optional<std::string_view> query() const { return detail::maybe(wg_request_query()); }
    /* The first value of a field. */
    std::optional<std::string_view> header(const std::string &name) const { return detail::maybe(wg_request_header(name.c_str())); }
    std::vector<std::string_view> header_values(const std::string &name) const { return detail::several(wg_request_header_values(name.c_str())); }
    std::vector<std::string_view> header_names() const { return detail::several(wg_request_header_names()); }
    void set_header(const std::string &name, const std::string &value) { wg_request_set_header(name.c_str(), value.c_str()); }
    void append_header(const std::string &name, const std::string &value) { wg_request_append_header(name.c_str(), value.c_str()); }
    void remove_header(const std::string &name) { wg_request_remove_header(name.c_str()); }
    void set_method(const std::string &method) { wg_request_set_method(method.c_str()); }
    void set_path(const std::string &path) { wg_request_set_path(path.c_str()); }
    void set_query(const std::optional<std::string> &query) { wg_request_set_query(query ? query->c_str() : nullptr); }
    void set_authority(const std::string &authority) { wg_request_set_authority(authority.c_str()); }
};

/* The response, in `on_response`. */
class Response {
  public:
    unsigned status() const { return wg_response_status(); }
    void set_status(unsigned status) { wg_response_set_status(status); }
    /* "upstream", "plugin" or "gateway". */
    std::string_view source() const { return wg_response_source(); }
    std::optional<std::string_view> header(const std::string &name) const { return detail::maybe(wg_response_header(name.c_str())); }
    std::vector<std::string_view> header_values(const std::string &name) const { return detail::several(wg_response_header_values(name.c_str())); }
    std::vector<std::string_view> header_names() const { return detail::several(wg_response_header_names()); }
    void set_header(const std::string &name, const std::string &value) { wg_response_set_header(name.c_str(), value.c_str()); }
    void append_header(const std::string &name, const std::string &value) { wg_response_append_header(name.c_str(), value.c_str()); }
    void remove_header(const std::string &name) { wg_response_remove_header(name.c_str()); }
};

/* The client's connection. */
namespace connection {
/* The client's IP address. */
inline std::string_view client_address() { return wg_client_address(); }
/* Such as "HTTP/2". */
inline std::string_view http_version() { return wg_http_version(); }
/* The name in the ClientHello. */
inline std::optional<std::string_view> tls_server_name() { return detail::maybe(wg_tls_server_name()); }
} // namespace connection

/* What becomes of a request. */
struct Continue {};
/* Routers only: an upstream by its name in gateway.yaml. */
struct ToUpstream {
    std::string name;
};
/* 301, 302, 303, 307 or 308. */
struct Redirect {
    unsigned status;
    std::string location;
};
struct Respond {
    unsigned status;
    std::string body;
    Fields headers;
};
using Decision = std::variant<Continue, ToUpstream, Redirect, Respond>;

/* ---- Every world ---- */

/* A line for the gateway's log: "error", "warn", "info", "debug" or "trace". */
inline void log(const std::string &level, const std::string &message) { wg_log(level.c_str(), message.c_str()); }

/* The plugin's key-value store, shared by its instances. `life` is in seconds, 0 for no end. Errors are codes:
 * key-too-long, value-too-long, quota, not-a-counter. */
namespace state {
inline std::optional<std::string> get(const std::string &key) {
    const char *value = wg_state_get(key.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
}
inline std::expected<void, std::string> set(const std::string &key, const std::string &value, unsigned life = 0) {
    if (const char *code = wg_state_set(key.c_str(), value.c_str(), life)) return std::unexpected(code);
    return {};
}
inline void remove(const std::string &key) { wg_state_remove(key.c_str()); }
inline std::expected<std::int64_t, std::string> increment(const std::string &key, std::int64_t by = 1, unsigned life = 0) {
    std::int64_t value = 0;
    if (const char *code = wg_state_increment(key.c_str(), by, life, &value)) return std::unexpected(code);
    return value;
}
} // namespace state

/* Keyed checks that the gateway makes, so that no key enters the plugin; witgate.h says more. Errors are codes. */
namespace crypto {
inline std::expected<std::string, std::string> hmac(const std::string &algorithm, const std::string &secret, std::string_view data) {
    wg_bytes code = {};
    if (const char *error = wg_hmac(algorithm.c_str(), secret.c_str(), detail::bytes(data), &code)) return std::unexpected(error);
    return std::string(reinterpret_cast<const char *>(code.data), code.length);
}
/* Compares in constant time. */
inline std::expected<bool, std::string> verify_hmac(const std::string &algorithm, const std::string &secret, std::string_view data, std::string_view code) {
    bool is_good = false;
    if (const char *error = wg_verify_hmac(algorithm.c_str(), secret.c_str(), detail::bytes(data), detail::bytes(code), &is_good)) return std::unexpected(error);
    return is_good;
}
inline std::expected<bool, std::string> verify_signature(const std::string &algorithm, std::string_view public_key, std::string_view data, std::string_view signature) {
    bool is_good = false;
    if (const char *error = wg_verify_signature(algorithm.c_str(), detail::bytes(public_key), detail::bytes(data), detail::bytes(signature), &is_good)) return std::unexpected(error);
    return is_good;
}
} // namespace crypto

/* ---- HTTP: solvers ---- */

/* Why a call did not succeed: a code of wit/dns-solver.wit, words for the operator, and the seconds that
 * the provider asked to wait, or 0. */
struct Failure {
    std::string code, message;
    unsigned retry_after = 0;
};

struct Outgoing {
    std::string method = "GET";
    std::string url;
    Fields headers = {};
    /* The body, as JSON. */
    std::optional<std::string> json = {};
    /* The NAME of a secret for `authorization: Bearer`; its value never enters the plugin. */
    std::optional<std::string> bearer = {};
};

/* An answer; 4xx and 5xx are answers too. */
class Answer {
  public:
    explicit Answer(const wg_answer &answer) : answer_(answer) {}
    unsigned status() const { return answer_.status; }
    bool is_success() const { return wg_is_success(&answer_); }
    std::string_view body() const { return {answer_.body, answer_.length}; }
    /* Nothing when the body is no JSON. */
    Json json() const { return Json(answer_.json); }
    /* The beginning of the body, for messages. */
    std::string excerpt() const { return wg_excerpt(&answer_); }
    /* The failure that the status stands for; `message` has the provider's own words. */
    Failure refused(const std::string &message) const {
        const wg_failure *failure = wg_refused(&answer_, message.c_str());
        return {failure->code, failure->message, failure->retry_after};
    }

  private:
    wg_answer answer_;
};

/* Sends a request within `grants` and waits for the whole answer. */
inline std::expected<Answer, Failure> send(const Outgoing &request) {
    std::vector<wg_pair> headers = detail::pairs(request.headers);
    wg_answer answer = {};
    const wg_failure *failure = wg_send(
        {request.method.c_str(), request.url.c_str(), {headers.data(), headers.size()}, request.json ? request.json->c_str() : nullptr, request.bearer ? request.bearer->c_str() : nullptr}, &answer);
    if (failure != nullptr) return std::unexpected(Failure{failure->code, failure->message, failure->retry_after});
    return Answer(answer);
}

/* Percent-encodes text for one segment of a path or one part of a query. */
inline std::string escape(std::string_view text) { return wg_escape(std::string(text).c_str()); }
/* The placeholder of a secret, for a header value, the query or the body. */
inline std::string secret(const std::string &name) { return wg_secret(name.c_str()); }

/* A zone: the provider's name and id of it. */
struct Zone {
    std::string name, handle;
};
using Texts = std::vector<std::string>;

inline Failure zone_not_found(const Texts &candidates) {
    std::vector<const char *> items;
    for (const std::string &one : candidates) items.push_back(one.c_str());
    const wg_failure *failure = wg_zone_not_found({items.data(), items.size()});
    return {failure->code, failure->message, failure->retry_after};
}

/* ---- What stands between the classes and the C of witgate.h ---- */

namespace detail {

template <class Plugin> std::optional<Plugin> plugin;

template <class Plugin> const char *configure(const wg_json *config) {
    std::expected<Plugin, std::string> made = Plugin::configure(Json(config));
    if (!made) return wg_copy(made.error().data(), made.error().size());
    plugin<Plugin>.emplace(*std::move(made));
    return nullptr;
}

inline void decide(const Decision &decision) {
    if (auto *upstream = std::get_if<ToUpstream>(&decision)) {
        wg_to_upstream(upstream->name.c_str());
    } else if (auto *redirect = std::get_if<Redirect>(&decision)) {
        wg_redirect(redirect->status, redirect->location.c_str());
    } else if (auto *respond = std::get_if<Respond>(&decision)) {
        std::vector<wg_pair> headers = pairs(respond->headers);
        wg_respond_bytes(respond->status, respond->body.data(), respond->body.size(), {headers.data(), headers.size()});
    }
}

template <class P> void on_request() {
    Request request;
    if constexpr (requires(P p) { p.on_request(request); }) decide(plugin<P>->on_request(request));
}

template <class P> void on_request_body(std::string_view prefix, bool is_complete) {
    Request request;
    if constexpr (requires(P p) { p.on_request_body(request, prefix, is_complete); }) decide(plugin<P>->on_request_body(request, prefix, is_complete));
}

template <class P> void on_response() {
    Request request;
    Response response;
    if constexpr (requires(P p) { p.on_response(request, response); }) plugin<P>->on_response(request, response);
}

template <class P> const char *hooks() {
    Request request;
    Response response;
    if constexpr (requires(P p) { p.hooks(); }) {
        std::string asked = plugin<P>->hooks();
        return wg_copy(asked.data(), asked.size());
    }
    constexpr bool has_request = requires(P p) { p.on_request(request); };
    constexpr bool has_response = requires(P p) { p.on_response(request, response); };
    return has_request ? (has_response ? "request response" : "request") : (has_response ? "response" : "none");
}

inline const wg_failure *failed(const Failure &failure) {
    auto *told = static_cast<wg_failure *>(wg_alloc(sizeof(wg_failure)));
    *told = {wg_copy(failure.code.data(), failure.code.size()), wg_copy(failure.message.data(), failure.message.size()), failure.retry_after};
    return told;
}

inline Texts texts(wg_texts texts) { return {texts.items, texts.items + texts.count}; }

template <class P> wg_pairs traits() {
    if constexpr (requires(P p) { p.traits(); }) {
        static const Fields fields = plugin<P>->traits();
        static const std::vector<wg_pair> pairs = detail::pairs(fields);
        return {pairs.data(), pairs.size()};
    }
    return {nullptr, 0};
}

template <class P> const wg_failure *find_zone(wg_texts candidates, wg_zone *zone) {
    std::expected<Zone, Failure> found = plugin<P>->find_zone(texts(candidates));
    if (!found) return failed(found.error());
    *zone = {wg_copy(found->name.data(), found->name.size()), wg_copy(found->handle.data(), found->handle.size())};
    return nullptr;
}

template <class P> const wg_failure *present(wg_zone zone, const char *name, wg_texts values, unsigned ttl, const char **handle) {
    std::expected<std::string, Failure> made = plugin<P>->present(Zone{zone.name, zone.handle}, std::string(name), texts(values), ttl);
    if (!made) return failed(made.error());
    *handle = wg_copy(made->data(), made->size());
    return nullptr;
}

template <class P> const wg_failure *poll(wg_zone zone, const char *handle, unsigned *seconds) {
    if constexpr (requires(P p) { p.poll(Zone{}, std::string()); }) {
        std::expected<unsigned, Failure> wait = plugin<P>->poll(Zone{zone.name, zone.handle}, std::string(handle));
        if (!wait) return failed(wait.error());
        *seconds = *wait;
    }
    return nullptr;
}

template <class P> const wg_failure *cleanup(wg_zone zone, const char *name, wg_texts values, const char *handle) {
    std::expected<void, Failure> done = plugin<P>->cleanup(Zone{zone.name, zone.handle}, std::string(name), texts(values), std::string(handle));
    return done ? nullptr : failed(done.error());
}

} // namespace detail
} // namespace witgate

#define WITGATE_PLUGIN(Plugin)                                                                     \
    extern "C" const char *plugin_configure(const wg_json *config) { return witgate::detail::configure<Plugin>(config); }

/* static std::expected<Plugin, std::string> configure(Json config);
 * Decision route(Request &request); */
#define WITGATE_ROUTER(Plugin)                                                                     \
    WITGATE_PLUGIN(Plugin)                                                                         \
    extern "C" void plugin_route(void) {                                                           \
        witgate::Request request;                                                                  \
        witgate::detail::decide(witgate::detail::plugin<Plugin>->route(request));                  \
    }

/* static std::expected<Plugin, std::string> configure(Json config);
 * Any of: Decision on_request(Request &request);
 *         Decision on_request_body(Request &request, std::string_view prefix, bool is_complete);
 *         void on_response(const Request &request, Response &response);
 *         std::string hooks(); the hooks needed, such as "request request-body:4096"; without it, request and
 *                              response as far as they are there. */
#define WITGATE_FILTER(Plugin)                                                                     \
    WITGATE_PLUGIN(Plugin)                                                                         \
    extern "C" void plugin_on_request(void) { witgate::detail::on_request<Plugin>(); }             \
    extern "C" void plugin_on_request_body(const std::uint8_t *prefix, std::size_t length, bool is_complete) { \
        witgate::detail::on_request_body<Plugin>({reinterpret_cast<const char *>(prefix), length}, is_complete); \
    }                                                                                              \
    extern "C" void plugin_on_response(void) { witgate::detail::on_response<Plugin>(); }           \
    extern "C" const char *plugin_hooks(void) { return witgate::detail::hooks<Plugin>(); }

/* static std::expected<Plugin, std::string> configure(Json config);
 * Fields traits();                                              may be left out
 * std::expected<Zone, Failure> find_zone(const Texts &candidates);
 * std::expected<std::string, Failure> present(const Zone &zone, const std::string &name, const Texts &values,
 *                                             unsigned ttl);
 * std::expected<unsigned, Failure> poll(const Zone &zone, const std::string &handle);       may be left out
 * std::expected<void, Failure> cleanup(const Zone &zone, const std::string &name, const Texts &values,
 *                                      const std::string &handle); */
#define WITGATE_DNS_SOLVER(Plugin)                                                                 \
    WITGATE_PLUGIN(Plugin)                                                                         \
    extern "C" wg_pairs plugin_traits(void) { return witgate::detail::traits<Plugin>(); }          \
    extern "C" const wg_failure *plugin_find_zone(wg_texts candidates, wg_zone *zone) {            \
        return witgate::detail::find_zone<Plugin>(candidates, zone);                               \
    }                                                                                              \
    extern "C" const wg_failure *plugin_present(wg_zone zone, const char *name, wg_texts values, unsigned ttl, const char **handle) { \
        return witgate::detail::present<Plugin>(zone, name, values, ttl, handle);                  \
    }                                                                                              \
    extern "C" const wg_failure *plugin_poll(wg_zone zone, const char *handle, unsigned *seconds) { \
        return witgate::detail::poll<Plugin>(zone, handle, seconds);                               \
    }                                                                                              \
    extern "C" const wg_failure *plugin_cleanup(wg_zone zone, const char *name, wg_texts values, const char *handle) { \
        return witgate::detail::cleanup<Plugin>(zone, name, values, handle);                       \
    }

#endif
