// Package abi is the border to the gateway: the imports of the contract in a component, and what
// witgatetest puts in their place elsewhere.
package abi

// Head is what requests and responses have in common.
type Head interface {
	Header(name string) (string, bool)
	HeaderValues(name string) []string
	HeaderNames() []string
	SetHeader(name, value string)
	AppendHeader(name, value string)
	RemoveHeader(name string)
}

// Request is the interfaces `request` and `connection`.
type Request interface {
	Head
	ID() string
	Method() string
	Scheme() string
	Authority() string
	Path() string
	Query() (string, bool)
	SetMethod(string)
	SetPath(string)
	SetQuery(query string, has bool)
	SetAuthority(string)
	ClientAddress() string
	HTTPVersion() string
	TLSServerName() string
	TLSVersion() string
	TLSALPN() string
}

// Response is the interface `response`.
type Response interface {
	Head
	Status() int
	SetStatus(int)
	Source() string
}

// Pair is a name with its value.
type Pair [2]string

// Answer is `http.response`.
type Answer struct {
	Status  int
	Headers []Pair
	Body    []byte
}

// Failure is `http.failure` and `dns-solver-hooks.failure`.
type Failure struct {
	Code, Message string
	RetryAfter    uint32
}
