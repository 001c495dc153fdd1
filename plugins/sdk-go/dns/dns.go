// Package dns is the world of DNS-01 solvers: plugins that write TXT records at one DNS provider.
//
// The gateway computes names and values, finds candidate zones, serialises calls, waits for propagation,
// retries and cleans up; a solver speaks its provider's API with Send. Names are absolute, in lower case
// and without the final dot. Every function may be called again after a failure or a restart.
package dns

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"witgate"
	"witgate/internal/abi"
)

// Zone is a zone at the provider.
type Zone struct {
	// Name is one of the candidates.
	Name string
	// Handle is the provider's id of it, or empty.
	Handle string
}

// Solver is what a solver implements; it may implement TraitsHook and PollHook as well. An error that
// is no *Failure counts as "unavailable": the gateway tries again later.
type Solver interface {
	// FindZone picks the zone that holds a record; candidates are the name's suffixes, longest first.
	FindZone(candidates []string) (Zone, error)
	// Present makes sure that the TXT record set called name has all of values, beside what else it
	// holds. The handle, any text, comes back in Poll and Cleanup. ttl is in seconds.
	Present(zone Zone, name string, values []string, ttl int) (handle string, err error)
	// Cleanup removes exactly values; absent ones count as removed. handle is empty when the gateway
	// does not know whether Present came through.
	Cleanup(zone Zone, name string, values []string, handle string) error
}

// TraitsHook tells facts about the provider, such as {"ttl-min": "60"}; wit/dns-solver.wit has them all.
type TraitsHook interface{ Traits() map[string]string }

// PollHook asks the provider whether a change is live: 0 when it is or when the provider cannot tell,
// else the seconds after which to ask again.
type PollHook interface {
	Poll(zone Zone, handle string) (seconds int, err error)
}

var solver Solver

// Export makes a solver that is made by create the plugin of this component. Call it in init. An error
// of create keeps the plugin from loading; it is for the operator and names the key.
func Export[C any, S Solver](create func(config C) (S, error)) {
	abi.Configure = func(text string) ([]string, error) {
		config, err := witgate.DecodeConfig[C](text)
		if err != nil {
			return nil, err
		}
		solver, err = create(config)
		return nil, err
	}
}

// Failure is why a call did not succeed.
type Failure struct {
	// Code is one of wit/dns-solver.wit: auth, forbidden, zone-not-found, rate-limited, conflict,
	// unavailable, invalid, account-not-entitled.
	Code string
	// Message is for the operator, with the provider's own words; without secrets.
	Message string
	// RetryAfter is how long the provider asked to wait, in seconds; 0 when it did not.
	RetryAfter int
}

func (f *Failure) Error() string { return f.Code + ": " + f.Message }

// ZoneNotFound says that the account has none of the candidates.
func ZoneNotFound(candidates []string) error {
	names := strings.Join(candidates, ", ")
	return &Failure{Code: "zone-not-found", Message: "the account has no zone for any of: " + names}
}

// Refused is the failure that an answer's status stands for; message has the provider's own words.
func Refused(answer *Answer, message string) error {
	code, isKnown := codes[answer.Status]
	if !isKnown {
		code = "unavailable"
		if answer.Status >= 400 && answer.Status < 500 {
			code = "invalid"
		}
	}
	failure := &Failure{Code: code, Message: message}
	if code == "rate-limited" || code == "unavailable" {
		if wait, err := strconv.ParseUint(answer.Get("retry-after"), 10, 31); err == nil {
			failure.RetryAfter = int(wait)
		}
	}
	return failure
}

var codes = map[int]string{
	401: "auth",
	402: "account-not-entitled",
	403: "forbidden",
	404: "zone-not-found",
	408: "unavailable",
	409: "conflict",
	412: "conflict",
	425: "unavailable",
	429: "rate-limited",
}

// Request is a request to be sent through the gateway, within the plugin's grants.
type Request struct {
	// Method is the method; empty means GET.
	Method string
	// URL is absolute; see Escape.
	URL string
	// Header are fields of the request.
	Header map[string]string
	// JSON becomes the body, unless it is nil.
	JSON any
	// Body is the body when there is no JSON.
	Body []byte
	// Bearer is the name of a secret for `authorization: Bearer`. The secret never enters the plugin.
	Bearer string
}

// Answer is an answer; a status of 4xx or 5xx is one too.
type Answer struct {
	// Status is the status code.
	Status int
	// Body is the whole body.
	Body []byte

	headers []abi.Pair
}

// Send sends a request and waits for the whole answer. Its error is a *Failure: there is no answer.
func Send(request Request) (*Answer, error) {
	method, body := request.Method, request.Body
	if method == "" {
		method = "GET"
	}
	var headers []abi.Pair
	for name, value := range request.Header {
		headers = append(headers, abi.Pair{strings.ToLower(name), value})
	}
	if request.JSON != nil {
		var err error
		if body, err = json.Marshal(request.JSON); err != nil {
			return nil, &Failure{Code: "invalid", Message: err.Error()}
		}
		headers = append(headers, abi.Pair{"content-type", "application/json"})
	}
	if request.Bearer != "" {
		headers = append(headers, abi.Pair{"authorization", "Bearer " + Secret(request.Bearer)})
	}
	answer, failure := abi.Send(method, request.URL, headers, body)
	if failure != nil {
		return nil, &Failure{Code: sendCode(failure.Code), Message: failure.Message}
	}
	return &Answer{answer.Status, answer.Body, answer.Headers}, nil
}

func sendCode(code string) string {
	switch code {
	case "denied":
		return "forbidden"
	case "unknown-secret":
		return "auth"
	case "bad-request":
		return "invalid"
	default:
		return "unavailable"
	}
}

// IsSuccess says whether the status is 2xx.
func (a *Answer) IsSuccess() bool { return a.Status >= 200 && a.Status < 300 }

// Get is the first value of a field; name is in lower case.
func (a *Answer) Get(name string) string {
	for _, pair := range a.headers {
		if pair[0] == name {
			return pair[1]
		}
	}
	return ""
}

// Decode reads the body as JSON into value, a pointer. Its error is a *Failure.
func (a *Answer) Decode(value any) error {
	if err := json.Unmarshal(a.Body, value); err != nil {
		words := fmt.Sprintf("the answer (status %d) is not as expected: %v: %s", a.Status, err, a.Excerpt())
		return &Failure{Code: "unavailable", Message: words}
	}
	return nil
}

// Excerpt is the beginning of the body, for messages.
func (a *Answer) Excerpt() string {
	text := strings.ToValidUTF8(string(a.Body), "\uFFFD")
	if runes := []rune(text); len(runes) > 300 {
		return string(runes[:300])
	}
	return text
}

// Secret is the placeholder of the secret called name, for a header value, the query or the body.
func Secret(name string) string { return "{{secret:" + name + "}}" }

// Escape percent-encodes text for one segment of a path or one part of a query.
func Escape(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}
