//go:build !wasip1

// Package witgatetest stands in for the gateway in a plugin's own tests.
package witgatetest

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"witgate"
	"witgate/internal/abi"
)

type head struct{ fields []abi.Pair }

func (h *head) Header(name string) (string, bool) {
	values := h.HeaderValues(name)
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

func (h *head) HeaderValues(name string) (values []string) {
	for _, field := range h.fields {
		if strings.EqualFold(field[0], name) {
			values = append(values, field[1])
		}
	}
	return values
}

func (h *head) HeaderNames() (names []string) {
	for _, field := range h.fields {
		if !slices.Contains(names, field[0]) {
			names = append(names, field[0])
		}
	}
	return names
}

func (h *head) SetHeader(name, value string) {
	h.RemoveHeader(name)
	h.AppendHeader(name, value)
}

func (h *head) AppendHeader(name, value string) {
	for _, letter := range []byte(value) {
		if letter < ' ' && letter != '\t' || letter == 0x7f {
			panic(fmt.Sprintf("the gateway ends the call here: %q is no value for %s", value, name))
		}
	}
	h.fields = append(h.fields, abi.Pair{strings.ToLower(name), value})
}

func (h *head) RemoveHeader(name string) {
	h.fields = slices.DeleteFunc(h.fields, func(field abi.Pair) bool {
		return strings.EqualFold(field[0], name)
	})
}

type request struct {
	head
	method, scheme, authority, path, query string
	hasQuery                               bool
}

func (r *request) ID() string                      { return "test" }
func (r *request) Method() string                  { return r.method }
func (r *request) Scheme() string                  { return r.scheme }
func (r *request) Authority() string               { return r.authority }
func (r *request) Path() string                    { return r.path }
func (r *request) Query() (string, bool)           { return r.query, r.hasQuery }
func (r *request) SetMethod(method string)         { r.method = method }
func (r *request) SetPath(path string)             { r.path = path }
func (r *request) SetQuery(query string, has bool) { r.query, r.hasQuery = query, has }
func (r *request) SetAuthority(authority string)   { r.authority = authority }
func (r *request) ClientAddress() string           { return "192.0.2.1" }
func (r *request) HTTPVersion() string             { return "HTTP/2" }
func (r *request) TLSServerName() string           { return r.authority }
func (r *request) TLSVersion() string              { return "TLSv1.3" }
func (r *request) TLSALPN() string                 { return "h2" }

type response struct {
	head
	status int
}

func (r *response) Status() int          { return r.status }
func (r *response) SetStatus(status int) { r.status = status }
func (r *response) Source() string       { return "upstream" }

// NewRequest is a request of this method for an absolute URL, with fields as name, value, name, value.
func NewRequest(method, address string, fields ...string) *witgate.Request {
	parsed, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	r := &request{
		method: method, scheme: parsed.Scheme, authority: strings.ToLower(parsed.Host),
		path: parsed.EscapedPath(), query: parsed.RawQuery, hasQuery: parsed.RawQuery != "",
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.AppendHeader(fields[i], fields[i+1])
	}
	return witgate.NewRequest(r)
}

// NewResponse is the response of an upstream.
func NewResponse(status int) *witgate.Response {
	return witgate.NewResponse(&response{status: status})
}

// Sent is a request that a solver sends.
type Sent struct {
	Method, URL string
	Header      map[string]string
	Body        []byte
}

// Decode reads the body as JSON; the test fails when it is none.
func (s Sent) Decode(t *testing.T, value any) {
	t.Helper()
	if err := json.Unmarshal(s.Body, value); err != nil {
		t.Fatalf("%s %s: %v", s.Method, s.URL, err)
	}
}

// Serve answers the requests of this test: serve returns a status, and what becomes JSON unless it is nil.
func Serve(t *testing.T, serve func(Sent) (status int, body any)) {
	t.Helper()
	abi.Server = func(method, url string, headers []abi.Pair, body []byte) (abi.Answer, *abi.Failure) {
		sent := Sent{method, url, map[string]string{}, body}
		for _, pair := range headers {
			sent.Header[pair[0]] = pair[1]
		}
		status, value := serve(sent)
		if value == nil {
			return abi.Answer{Status: status}, nil
		}
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return abi.Answer{Status: status, Body: text}, nil
	}
	t.Cleanup(func() { abi.Server = nil })
}

// Secrets are what witgate.HMAC and witgate.VerifyHMAC use in this test.
func Secrets(t *testing.T, secrets map[string][]byte) {
	abi.Secrets = secrets
	t.Cleanup(func() { abi.Secrets = nil })
}

// Signatures judges what witgate.VerifySignature asks in this test.
func Signatures(t *testing.T, judge func(algorithm string, publicKey, data, signature []byte) bool) {
	abi.Signatures = judge
	t.Cleanup(func() { abi.Signatures = nil })
}
