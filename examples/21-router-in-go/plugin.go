// A router: the tenant is the label in front of our domain, and the configuration knows which upstream
// serves it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"witgate"
	"witgate/router"
)

// Config is `config:` of the stanza.
type Config struct {
	// Tenants are the labels in front of this name.
	Domain string `json:"domain"`
	// The upstream of each tenant, by its name in gateway.yaml.
	Tenants map[string]string `json:"tenants"`
	// Tenants that have another name now: old to new.
	Moved map[string]string `json:"moved"`
	// The upstream of all others; without it they get 404.
	Default *string `json:"default"`
}

// TenantRouter is the plugin, configured.
type TenantRouter struct {
	Config
	suffix string
}

// New makes the plugin.
func New(config Config) (*TenantRouter, error) {
	if config.Domain == "" || config.Domain[0] == '.' {
		return nil, errors.New("config.domain: a name such as example.com, without a first dot")
	}
	if len(config.Tenants) == 0 {
		return nil, errors.New("config.tenants: name at least one tenant and its upstream")
	}
	for old, tenant := range config.Moved {
		if _, has := config.Tenants[tenant]; !has {
			return nil, fmt.Errorf("config.moved.%s: `%s` is not in config.tenants", old, tenant)
		}
	}
	return &TenantRouter{config, "." + config.Domain}, nil
}

// Route decides.
func (r *TenantRouter) Route(request *witgate.Request) witgate.Decision {
	// Whoever reads it behind us must be able to trust it.
	request.Del("x-tenant")
	host := request.Hostname()
	tenant, isOurs := strings.CutSuffix(host, r.suffix)
	if !isOurs {
		return witgate.Continue
	}
	if upstream, has := r.Tenants[tenant]; has {
		request.Set("x-tenant", tenant)
		return witgate.ToUpstream(upstream)
	}
	if moved, has := r.Moved[tenant]; has {
		return witgate.Redirect(308, r.location(request, moved, host))
	}
	if r.Default != nil {
		return witgate.ToUpstream(*r.Default)
	}
	body, _ := json.Marshal(map[string]string{"error": "unknown tenant", "tenant": tenant})
	return witgate.Respond(404, map[string]string{"content-type": "application/json"}, body)
}

// location is the URL in hand with another tenant in it; its port stays.
func (r *TenantRouter) location(request *witgate.Request, tenant, host string) string {
	port := strings.TrimPrefix(request.Authority(), host)
	location := request.Scheme() + "://" + tenant + r.suffix + port + request.Path()
	if query, has := request.Query(); has {
		location += "?" + query
	}
	return location
}

func init() { router.Export(New) }

func main() {}
