// A router: the tenant is the label in front of our domain, and the configuration knows which upstream
// serves it.
#include "witgate.hpp"

using witgate::Decision;

class TenantRouter {
  public:
    static std::expected<TenantRouter, std::string> configure(witgate::Json config) {
        TenantRouter made;
        auto checked = witgate::want(config, {
                                                 {"domain", &made.domain_, true},
                                                 {"tenants", &made.tenants_, true},
                                                 {"moved", &made.moved_},
                                                 {"default", &made.other_},
                                             });
        if (!checked) return std::unexpected(checked.error());
        if (made.domain_.empty() || made.domain_.starts_with('.')) {
            return std::unexpected("config.domain: a name such as example.com, without a first dot");
        }
        if (made.tenants_.empty()) return std::unexpected("config.tenants: name at least one tenant and its upstream");
        for (const auto &[old, tenant] : made.moved_) {
            if (!made.tenants_.contains(tenant)) {
                return std::unexpected("config.moved." + old + ": `" + tenant + "` is not in config.tenants");
            }
        }
        return made;
    }

    Decision route(witgate::Request &request) {
        // Whoever reads it behind us must be able to trust it.
        request.remove_header("x-tenant");
        std::string host(request.hostname()), suffix = "." + domain_;
        if (!host.ends_with(suffix)) return witgate::Continue{};
        std::string tenant = host.substr(0, host.size() - suffix.size());
        if (auto found = tenants_.find(tenant); found != tenants_.end()) {
            request.set_header("x-tenant", tenant);
            return witgate::ToUpstream{found->second};
        }
        if (auto found = moved_.find(tenant); found != moved_.end()) {
            return witgate::Redirect{308, location(request, found->second)};
        }
        if (other_) return witgate::ToUpstream{*other_};
        return witgate::Respond{404,
                                R"({"error":"unknown tenant","tenant":)" + witgate::quote(tenant) + "}",
                                {{"content-type", "application/json"}}};
    }

  private:
    // The URL in hand with another tenant in it; its port stays.
    std::string location(const witgate::Request &request, const std::string &tenant) const {
        std::string port(request.authority().substr(request.hostname().size()));
        std::string query = request.query() ? "?" + std::string(*request.query()) : "";
        return std::string(request.scheme()) + "://" + tenant + "." + domain_ + port + std::string(request.path()) + query;
    }

    std::string domain_;
    std::map<std::string, std::string> tenants_, moved_;
    std::optional<std::string> other_;
};

WITGATE_ROUTER(TenantRouter)
