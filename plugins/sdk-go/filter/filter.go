// Package filter is the world of filters: plugins that read and change the heads of requests and of
// their responses. A filter implements any of RequestHook, BodyHook and ResponseHook; a hook that it has
// not costs nothing.
package filter

import (
	"fmt"
	"strconv"

	"witgate"
	"witgate/internal/abi"
)

// RequestHook is called when the request's head is there and nothing has been sent upstream.
type RequestHook interface {
	OnRequest(request *witgate.Request) witgate.Decision
}

// BodyHook is called with the beginning of the request's body, of at most BodyBytes bytes. The body goes
// to the upstream untouched; prefix is good for the call.
type BodyHook interface {
	BodyBytes() int
	OnRequestBody(request *witgate.Request, prefix []byte, isComplete bool) witgate.Decision
}

// ResponseHook is called when the response's head is there. The request can be read and not changed.
type ResponseHook interface {
	OnResponse(request *witgate.Request, response *witgate.Response)
}

var (
	onRequest  RequestHook
	onBody     BodyHook
	onResponse ResponseHook
)

// Export makes a filter that is made by create the plugin of this component. Call it in init. An error
// of create keeps the plugin from loading; it is for the operator and names the key.
func Export[C any, F any](create func(config C) (F, error)) {
	abi.Configure = func(text string) ([]string, error) {
		config, err := witgate.DecodeConfig[C](text)
		if err != nil {
			return nil, err
		}
		made, err := create(config)
		if err != nil {
			return nil, err
		}
		return hooks(made)
	}
}

func hooks(made any) (hooks []string, err error) {
	var has bool
	if onRequest, has = made.(RequestHook); has {
		hooks = append(hooks, "request")
	}
	if onBody, has = made.(BodyHook); has {
		hooks = append(hooks, "request-body:"+strconv.Itoa(onBody.BodyBytes()))
	}
	if onResponse, has = made.(ResponseHook); has {
		hooks = append(hooks, "response")
	}
	if hooks == nil {
		return nil, fmt.Errorf("%T has none of the hooks of witgate/filter", made)
	}
	return hooks, nil
}
