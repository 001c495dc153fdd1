// A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API is the one
// of `examples/provider.py`, so that all of this can be tried on one machine.
//
// The gateway computes names and values, retries, waits and cleans up; here is only the API. The token is a
// placeholder: the gateway puts the secret in when it sends.
#include "witgate.hpp"

#include <algorithm>
#include <sstream>

using witgate::Answer;
using witgate::Failure;
using witgate::Json;
using witgate::Texts;
using witgate::Zone;
template <class T> using Result = std::expected<T, Failure>;

class ExampleSolver {
  public:
    static std::expected<ExampleSolver, std::string> configure(Json config) {
        ExampleSolver made;
        auto checked = witgate::want(config, {{"api", &made.api_, true}, {"ttl", &made.ttl_}});
        if (!checked) return std::unexpected(checked.error());
        if (!made.api_.starts_with("https://") && !made.api_.starts_with("http://")) {
            return std::unexpected("config.api: a URL such as https://api.provider.example/v1");
        }
        if (config["ttl"] && made.ttl_ < 1) return std::unexpected("config.ttl: at least one second");
        while (made.api_.ends_with('/')) made.api_.pop_back();
        return made;
    }

    witgate::Fields traits() const { return {{"ttl-min", "30"}}; }

    Result<Zone> find_zone(const Texts &candidates) const {
        for (const std::string &name : candidates) {
            auto zones = list(api_ + "/zones?name=" + witgate::escape(name), "zones");
            if (!zones) return std::unexpected(zones.error());
            for (Json zone : *zones) {
                if (zone["name"].text() == name && zone["id"].text()) return Zone{name, std::string(*zone["id"].text())};
            }
        }
        return std::unexpected(witgate::zone_not_found(candidates));
    }

    Result<std::string> present(const Zone &zone, const std::string &name, const Texts &values, unsigned ttl) const {
        std::string ids;
        bool is_complete = true;
        for (const std::string &value : values) {
            std::string record = R"({"type":"TXT","name":)" + witgate::quote(name) + R"(,"content":)" + witgate::quote(value) + R"(,"ttl":)" +
                                 std::to_string(ttl_ > 0 ? ttl_ : ttl) + "}";
            auto answer = call("POST", records(zone), record);
            if (!answer) return std::unexpected(answer.error());
            // It is there already, from a call that did not come through.
            if (answer->status() == 409) {
                is_complete = false;
                continue;
            }
            auto made = checked(*answer);
            if (!made) return std::unexpected(made.error());
            auto id = made->json()["id"].text();
            if (!id) return std::unexpected(unexpected(*made, "id"));
            ids += (ids.empty() ? "" : " ") + std::string(*id);
        }
        // Records that were there already are found by their value when they are removed.
        return is_complete ? ids : "";
    }

    Result<unsigned> poll(const Zone &zone, const std::string &handle) const {
        unsigned seconds = 0;
        std::istringstream ids(handle);
        for (std::string id; ids >> id;) {
            auto answer = checked(call("GET", records(zone) + "/" + witgate::escape(id)));
            if (!answer) return std::unexpected(answer.error());
            if (answer->json()["status"].text() == "pending") seconds = 1;
        }
        return seconds;
    }

    Result<void> cleanup(const Zone &zone, const std::string &name, const Texts &values, const std::string &handle) const {
        std::istringstream ids(handle);
        for (std::string id; ids >> id;) {
            if (auto dropped = drop(zone, id); !dropped) return dropped;
        }
        if (!handle.empty()) return {};
        auto found = list(records(zone) + "?type=TXT&name=" + witgate::escape(name), "records");
        if (!found) return std::unexpected(found.error());
        for (Json record : *found) {
            auto content = record["content"].text(), id = record["id"].text();
            // Nobody else's: the name may hold more than ours.
            bool is_ours = content && std::ranges::find(values, *content) != values.end();
            if (!is_ours || !id) continue;
            if (auto dropped = drop(zone, std::string(*id)); !dropped) return dropped;
        }
        return {};
    }

  private:
    std::string records(const Zone &zone) const { return api_ + "/zones/" + witgate::escape(zone.handle) + "/records"; }

    static Result<Answer> call(const std::string &method, const std::string &url, const std::optional<std::string> &json = {}) {
        return witgate::send({.method = method, .url = url, .json = json, .bearer = "token"});
    }

    // The answer if it is one of success; else a failure in the provider's own words.
    static Result<Answer> checked(const Result<Answer> &answer) {
        if (!answer || answer->is_success()) return answer;
        auto said = answer->json()["error"].text();
        // Without one it is not from the API itself but from something in front of it.
        return std::unexpected(answer->refused(said ? std::string(*said) : answer->excerpt()));
    }

    static Failure unexpected(const Answer &answer, const std::string &what) {
        return {"unavailable", "the answer (status " + std::to_string(answer.status()) + ") has no " + what + ": " + answer.excerpt()};
    }

    // Reads something whose answer is a map with a list of this name.
    static Result<Json> list(const std::string &url, const std::string &name) {
        auto answer = checked(call("GET", url));
        if (!answer) return std::unexpected(answer.error());
        Json found = answer->json()[name];
        if (!found.is_list()) return std::unexpected(unexpected(*answer, name));
        return found;
    }

    Result<void> drop(const Zone &zone, const std::string &id) const {
        auto answer = call("DELETE", records(zone) + "/" + witgate::escape(id));
        // It is gone already.
        if (answer && answer->status() == 404) return {};
        answer = checked(answer);
        if (!answer) return std::unexpected(answer.error());
        return {};
    }

    std::string api_;
    std::int64_t ttl_ = 0;
};

WITGATE_DNS_SOLVER(ExampleSolver)
