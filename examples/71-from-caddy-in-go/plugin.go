package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"witgate"
	"witgate/filter"
)

type Config struct {
	Allow      []string `json:"allow"`
	RetryAfter int      `json:"retry-after"`
}

type Maintenance struct {
	allow  []netip.Prefix
	header map[string]string
}

func New(config Config) (*Maintenance, error) {
	m := &Maintenance{header: map[string]string{"content-type": "text/plain"}}
	for i, text := range config.Allow {
		prefix, err := netip.ParsePrefix(text)
		if address, e := netip.ParseAddr(text); e == nil {
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("config.allow[%d]: %w", i, err)
		}
		m.allow = append(m.allow, prefix)
	}
	if config.RetryAfter > 0 {
		m.header["retry-after"] = strconv.Itoa(config.RetryAfter)
	}
	return m, nil
}

func (m *Maintenance) OnRequest(request *witgate.Request) witgate.Decision {
	client, err := netip.ParseAddr(request.Connection().ClientAddress())
	for _, prefix := range m.allow {
		if err == nil && prefix.Contains(client.Unmap()) {
			return witgate.Continue
		}
	}
	return witgate.Respond(503, m.header, []byte("We will be back soon.\n"))
}

func init() { filter.Export(New) }

func main() {}
