// Package witgate is what Witgate plugins in Go are written with.
//
// A plugin is a type that is made from its configuration, with the hooks of its world, and an Export
// in init:
//
//	package main
//
//	import (
//		"witgate"
//		"witgate/filter"
//	)
//
//	type Config struct {
//		Tag string `json:"tag"`
//	}
//
//	type Tagger struct{ tag string }
//
//	func New(config Config) (*Tagger, error) { return &Tagger{config.Tag}, nil }
//
//	func (t *Tagger) OnRequest(request *witgate.Request) witgate.Decision {
//		request.Set("x-tag", t.tag)
//		return witgate.Continue
//	}
//
//	func init() { filter.Export(New) }
//
//	func main() {}
//
// The packages witgate/router, witgate/filter and witgate/dns are the worlds; one plugin is of one of
// them. `witgate plugin build` compiles with the standard compiler for wasip1 and makes a component of
// it. Under `go test` the same code runs on your machine, and witgate/witgatetest stands in for the
// gateway.
//
// A call runs alone on one thread: a goroutine that still waits when a hook returns goes on in the
// next call, if there is one. A panic ends the call as any broken rule does, and its text is logged.
package witgate

import (
	"strings"

	"witgate/internal/abi"
)

// Decision is what becomes of a request.
type Decision struct {
	// Kind is "upstream", "redirect", "respond", or empty for a request that goes on.
	Kind string
	// Status is that of a redirect or a response.
	Status int
	// Target is the name of an upstream, or the location of a redirect.
	Target string
	// Header are the fields of a response.
	Header map[string]string
	// Body is that of a response.
	Body []byte
}

// Continue lets the request go on: to the site's own routes, or to the next filter.
var Continue = Decision{}

// ToUpstream sends the request to an upstream by its name in gateway.yaml. Routers only.
func ToUpstream(name string) Decision { return Decision{Kind: "upstream", Target: name} }

// Redirect answers with 301, 302, 303, 307 or 308 and a location.
func Redirect(status int, location string) Decision {
	return Decision{Kind: "redirect", Status: status, Target: location}
}

// Respond answers with a response of the plugin's own; status is 200 to 599, header may be nil.
func Respond(status int, header map[string]string, body []byte) Decision {
	return Decision{Kind: "respond", Status: status, Header: header, Body: body}
}

// Request is the head of the request in hand, valid inside a hook. Names of fields are
// case-insensitive. The gateway owns some fields (connection, content-length, host and their like):
// to change one of them, or to set an invalid name or value, ends the call.
type Request struct{ host abi.Request }

// Response is the head of the response in hand, valid inside OnResponse.
type Response struct{ host abi.Response }

// NewRequest is for the packages of the worlds and for witgatetest.
func NewRequest(host abi.Request) *Request { return &Request{host} }

// NewResponse is for the packages of the worlds and for witgatetest.
func NewResponse(host abi.Response) *Response { return &Response{host} }

// ID is the id of this exchange, as in the access log.
func (r *Request) ID() string { return r.host.ID() }

// Method is the method, such as GET.
func (r *Request) Method() string { return r.host.Method() }

// Scheme is "https" or "http": how the client reached the gateway.
func (r *Request) Scheme() string { return r.host.Scheme() }

// Authority is the host in lower case, and the port when the client sent one.
func (r *Request) Authority() string { return r.host.Authority() }

// Hostname is the host of Authority, without a port.
func (r *Request) Hostname() string {
	authority := r.host.Authority()
	end := strings.LastIndexByte(authority, ':')
	if end < 0 || strings.HasSuffix(authority, "]") {
		return authority
	}
	return authority[:end]
}

// Path is the path as sent, percent-encoded, without the query.
func (r *Request) Path() string { return r.host.Path() }

// Query is the query without its "?", and whether there is one.
func (r *Request) Query() (query string, has bool) { return r.host.Query() }

// Get is the first value of a field; empty when it is absent.
func (r *Request) Get(name string) string {
	value, _ := r.host.Header(name)
	return value
}

// Has says whether a field is there, and its value is UTF-8.
func (r *Request) Has(name string) bool {
	_, has := r.host.Header(name)
	return has
}

// Values are all values of a field, in the order they came.
func (r *Request) Values(name string) []string { return r.host.HeaderValues(name) }

// Names are the names of all fields, each once.
func (r *Request) Names() []string { return r.host.HeaderNames() }

// Set sets a field to one value, in place of any it had.
func (r *Request) Set(name, value string) { r.host.SetHeader(name, value) }

// Add adds a value to a field beside those it has.
func (r *Request) Add(name, value string) { r.host.AppendHeader(name, value) }

// Del removes a field with all its values.
func (r *Request) Del(name string) { r.host.RemoveHeader(name) }

// SetMethod changes the method that the upstream sees.
func (r *Request) SetMethod(method string) { r.host.SetMethod(method) }

// SetPath changes the path that the upstream sees; percent-encoded, without a query.
func (r *Request) SetPath(path string) { r.host.SetPath(path) }

// SetQuery changes the query that the upstream sees, without its "?".
func (r *Request) SetQuery(query string) { r.host.SetQuery(query, true) }

// RemoveQuery takes the query away.
func (r *Request) RemoveQuery() { r.host.SetQuery("", false) }

// SetAuthority changes the authority that the upstream sees.
func (r *Request) SetAuthority(authority string) { r.host.SetAuthority(authority) }

// Connection has facts about how the request came, which the gateway established itself.
func (r *Request) Connection() Connection { return Connection{r.host} }

// Status is the status code.
func (r *Response) Status() int { return r.host.Status() }

// SetStatus changes the status code: 200 to 599.
func (r *Response) SetStatus(status int) { r.host.SetStatus(status) }

// Source is "upstream", "plugin" or "gateway": who made this response.
func (r *Response) Source() string { return r.host.Source() }

// Get is the first value of a field; empty when it is absent.
func (r *Response) Get(name string) string {
	value, _ := r.host.Header(name)
	return value
}

// Has says whether a field is there, and its value is UTF-8.
func (r *Response) Has(name string) bool {
	_, has := r.host.Header(name)
	return has
}

// Values are all values of a field, in the order they came.
func (r *Response) Values(name string) []string { return r.host.HeaderValues(name) }

// Names are the names of all fields, each once.
func (r *Response) Names() []string { return r.host.HeaderNames() }

// Set sets a field to one value, in place of any it had.
func (r *Response) Set(name, value string) { r.host.SetHeader(name, value) }

// Add adds a value to a field beside those it has.
func (r *Response) Add(name, value string) { r.host.AppendHeader(name, value) }

// Del removes a field with all its values.
func (r *Response) Del(name string) { r.host.RemoveHeader(name) }

// Connection has facts about the connection of the exchange in hand.
type Connection struct{ host abi.Request }

// ClientAddress is the client's IP address in text form.
func (c Connection) ClientAddress() string { return c.host.ClientAddress() }

// HTTPVersion is the protocol of the request, such as "HTTP/2".
func (c Connection) HTTPVersion() string { return c.host.HTTPVersion() }

// ServerName is the name that the client asked for in its ClientHello; empty without one.
func (c Connection) ServerName() string { return c.host.TLSServerName() }

// TLSVersion is "TLSv1.2" or "TLSv1.3"; empty over plain HTTP.
func (c Connection) TLSVersion() string { return c.host.TLSVersion() }

// ALPN is the application protocol of the handshake, such as "h2"; empty without one.
func (c Connection) ALPN() string { return c.host.TLSALPN() }

// Log writes a line to the gateway's log; level is error, warn, info, debug or trace.
func Log(level, message string) { abi.Log(level, message) }
