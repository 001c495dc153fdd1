package main

import (
	"fmt"
	"strconv"
	"time"

	"witgate"
	"witgate/filter"
)

type Probe struct{}

func New(struct{}) (*Probe, error) { return &Probe{}, nil }

func (*Probe) OnRequest(request *witgate.Request) witgate.Decision {
	switch request.Path() {
	case "/state":
		n, err := witgate.State.Increment("n", 1, time.Minute)
		if err != nil {
			return say(err.Error())
		}
		if err := witgate.State.Set("k", fmt.Appendf(nil, "v%d", n), 0); err != nil {
			return say(err.Error())
		}
		value, _ := witgate.State.Get("k")
		return say(fmt.Sprintf("n=%d k=%s", n, value))
	case "/crypto":
		code, err := witgate.HMAC("sha256", "key", []byte("data"))
		if err != nil {
			return say(err.Error())
		}
		good, _ := witgate.VerifyHMAC("sha256", "key", []byte("data"), code)
		bad, _ := witgate.VerifyHMAC("sha256", "key", []byte("else"), code)
		_, err = witgate.VerifySignature("none", nil, nil, nil)
		return say(fmt.Sprintf("%x %t %t %v", code, good, bad, err))
	case "/connection":
		connection := request.Connection()
		return say(connection.ClientAddress() + " " + connection.HTTPVersion())
	}
	witgate.Log("warn", "the probe speaks")
	return witgate.Continue
}

func (*Probe) BodyBytes() int { return 4 }

func (*Probe) OnRequestBody(request *witgate.Request, prefix []byte, isComplete bool) witgate.Decision {
	if request.Path() != "/body" {
		return witgate.Continue
	}
	return say(fmt.Sprintf("prefix=%s %t", prefix, isComplete))
}

func (*Probe) OnResponse(_ *witgate.Request, response *witgate.Response) {
	response.Set("x-status", strconv.Itoa(response.Status()))
}

func say(text string) witgate.Decision { return witgate.Respond(200, nil, []byte(text)) }

func init() { filter.Export(New) }

func main() {}
