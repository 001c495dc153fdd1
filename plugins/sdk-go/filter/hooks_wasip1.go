package filter

import (
	"witgate"
	"witgate/internal/abi"
	"witgate/internal/decide"
)

var (
	request  = witgate.NewRequest(abi.TheRequest{})
	response = witgate.NewResponse(abi.TheResponse{})
)

//go:wasmexport witgate:plugin/filter-hooks@0.1.0#on-request
func whenRequest() {
	abi.Enter()
	defer abi.Leave()
	decide.Tell(onRequest.OnRequest(request))
}

//go:wasmexport witgate:plugin/filter-hooks@0.1.0#on-request-body
func whenBody(address, length uint32, isComplete bool) {
	prefix := abi.TakeBytes(address, length)
	defer abi.Leave()
	decide.Tell(onBody.OnRequestBody(request, prefix, isComplete))
}

//go:wasmexport witgate:plugin/filter-hooks@0.1.0#on-response
func whenResponse() {
	abi.Enter()
	defer abi.Leave()
	onResponse.OnResponse(request, response)
}
