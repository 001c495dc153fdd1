// Package decide tells the gateway what was decided.
package decide

import (
	"maps"
	"slices"

	"witgate"
	"witgate/internal/abi"
)

// Tell tells it.
func Tell(decision witgate.Decision) {
	switch decision.Kind {
	case "upstream":
		abi.ToUpstream(decision.Target)
	case "redirect":
		abi.Redirect(decision.Status, decision.Target)
	case "respond":
		headers := make([]abi.Pair, 0, len(decision.Header))
		for _, name := range slices.Sorted(maps.Keys(decision.Header)) {
			headers = append(headers, abi.Pair{name, decision.Header[name]})
		}
		abi.Respond(decision.Status, headers, decision.Body)
	}
}
