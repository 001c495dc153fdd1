package router

import (
	"witgate"
	"witgate/internal/abi"
	"witgate/internal/decide"
)

var request = witgate.NewRequest(abi.TheRequest{})

//go:wasmexport witgate:plugin/router-hooks@0.1.0#route
func route() {
	abi.Enter()
	defer abi.Leave()
	decide.Tell(router.Route(request))
}
