// A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API is
// the one of `examples/provider.py`, so that all of this can be tried on one machine.
//
// The gateway computes names and values, retries, waits and cleans up; here is only the API. The token
// is a placeholder: the gateway puts the secret in when it sends.
package main

import (
	"errors"
	"slices"
	"strings"

	"witgate/dns"
)

// Config is `config:` of the stanza.
type Config struct {
	// The URL of the API, such as `https://api.provider.example/v1`.
	API string `json:"api"`
	// The TTL of the records in seconds, instead of what the gateway asks for.
	TTL *uint32 `json:"ttl"`
}

// ExampleDNS is the plugin, configured.
type ExampleDNS struct{ Config }

// entry is a zone or a record.
type entry struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Content string `json:"content"`
	Status  string `json:"status"`
}

// New makes the plugin.
func New(config Config) (*ExampleDNS, error) {
	if !strings.HasPrefix(config.API, "https://") && !strings.HasPrefix(config.API, "http://") {
		return nil, errors.New("config.api: a URL such as https://api.provider.example/v1")
	}
	if config.TTL != nil && *config.TTL == 0 {
		return nil, errors.New("config.ttl: at least one second")
	}
	config.API = strings.TrimRight(config.API, "/")
	return &ExampleDNS{config}, nil
}

// Traits tells what the provider takes.
func (e *ExampleDNS) Traits() map[string]string { return map[string]string{"ttl-min": "30"} }

// FindZone asks for the longest first.
func (e *ExampleDNS) FindZone(candidates []string) (dns.Zone, error) {
	for _, name := range candidates {
		var found struct{ Zones []entry }
		if err := get(e.API+"/zones?name="+dns.Escape(name), &found); err != nil {
			return dns.Zone{}, err
		}
		for _, zone := range found.Zones {
			if zone.Name == name {
				return dns.Zone{Name: name, Handle: zone.ID}, nil
			}
		}
	}
	return dns.Zone{}, dns.ZoneNotFound(candidates)
}

// Present adds a record for each value.
func (e *ExampleDNS) Present(zone dns.Zone, name string, values []string, ttl int) (string, error) {
	if e.TTL != nil {
		ttl = int(*e.TTL)
	}
	var ids []string
	for _, value := range values {
		record := map[string]any{"type": "TXT", "name": name, "content": value, "ttl": ttl}
		var added entry
		err := call(dns.Request{Method: "POST", URL: e.records(zone), JSON: record}, &added)
		if isConflict(err) {
			// It is there already, from a call that did not come through.
			continue
		}
		if err != nil {
			return "", err
		}
		ids = append(ids, added.ID)
	}
	if len(ids) < len(values) {
		// Records that were there already are found by their value when they are removed.
		return "", nil
	}
	return strings.Join(ids, " "), nil
}

// Poll asks for the state of each record.
func (e *ExampleDNS) Poll(zone dns.Zone, handle string) (int, error) {
	for _, id := range strings.Fields(handle) {
		var record entry
		if err := get(e.record(zone, id), &record); err != nil {
			return 0, err
		}
		if record.Status == "pending" {
			return 1, nil
		}
	}
	return 0, nil
}

// Cleanup removes our records.
func (e *ExampleDNS) Cleanup(zone dns.Zone, name string, values []string, handle string) error {
	ids := strings.Fields(handle)
	if len(ids) == 0 {
		var found struct{ Records []entry }
		if err := get(e.records(zone)+"?type=TXT&name="+dns.Escape(name), &found); err != nil {
			return err
		}
		for _, record := range found.Records {
			// Nobody else's: the name may hold more than ours.
			if slices.Contains(values, record.Content) {
				ids = append(ids, record.ID)
			}
		}
	}
	for _, id := range ids {
		err := call(dns.Request{Method: "DELETE", URL: e.record(zone, id)}, nil)
		var failure *dns.Failure
		if errors.As(err, &failure) && failure.Code == "zone-not-found" {
			// 404: it is gone already.
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *ExampleDNS) records(zone dns.Zone) string {
	return e.API + "/zones/" + dns.Escape(zone.Handle) + "/records"
}

func (e *ExampleDNS) record(zone dns.Zone, id string) string {
	return e.records(zone) + "/" + dns.Escape(id)
}

func isConflict(err error) bool {
	var failure *dns.Failure
	return errors.As(err, &failure) && failure.Code == "conflict"
}

func get(url string, value any) error { return call(dns.Request{URL: url}, value) }

// call sends a request with the token and reads the answer into value, unless that is nil. An answer that
// is no success becomes a failure in the provider's own words.
func call(request dns.Request, value any) error {
	request.Bearer = "token"
	answer, err := dns.Send(request)
	if err != nil {
		return err
	}
	if !answer.IsSuccess() {
		var said struct{ Error string }
		if answer.Decode(&said) != nil || said.Error == "" {
			// Not from the API itself but from something in front of it.
			said.Error = answer.Excerpt()
		}
		return dns.Refused(answer, said.Error)
	}
	if value == nil {
		return nil
	}
	return answer.Decode(value)
}

func init() { dns.Export(New) }

func main() {}
