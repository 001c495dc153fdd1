// Package router is the world of routers: plugins that choose where a request goes.
package router

import (
	"witgate"
	"witgate/internal/abi"
)

// Router is what a router implements.
type Router interface {
	// Route decides about the request in hand; witgate.Continue leaves it to the site's own routes.
	Route(request *witgate.Request) witgate.Decision
}

var router Router

// Export makes a router that is made by create the plugin of this component. Call it in init. An
// error of create keeps the plugin from loading; it is for the operator and names the key.
func Export[C any, R Router](create func(config C) (R, error)) {
	abi.Configure = func(text string) ([]string, error) {
		config, err := witgate.DecodeConfig[C](text)
		if err != nil {
			return nil, err
		}
		router, err = create(config)
		return nil, err
	}
}
