package dns

import (
	"errors"
	"maps"
	"slices"
	"unsafe"

	"witgate/internal/abi"
)

//go:wasmexport witgate:plugin/dns-solver-hooks@0.1.0#traits
func traits() unsafe.Pointer {
	abi.Enter()
	defer abi.Leave()
	var pairs []abi.Pair
	if hook, has := solver.(TraitsHook); has {
		traits := hook.Traits()
		for _, name := range slices.Sorted(maps.Keys(traits)) {
			pairs = append(pairs, abi.Pair{name, traits[name]})
		}
	}
	return abi.Result(2).Pairs(0, pairs).Address()
}

//go:wasmexport witgate:plugin/dns-solver-hooks@0.1.0#find-zone
func findZone(candidates, count uint32) unsafe.Pointer {
	names := abi.Texts(candidates, count)
	abi.Settle()
	defer abi.Leave()
	zone, err := solver.FindZone(names)
	if err != nil {
		return failed(err)
	}
	return abi.Result(7).Text(1, zone.Name).Text(3, zone.Handle).Address()
}

//go:wasmexport witgate:plugin/dns-solver-hooks@0.1.0#present
func present(zone, zoneLength, id, idLength, name, nameLength, values, count, ttl uint32) unsafe.Pointer {
	in := Zone{abi.Text(zone, zoneLength), abi.Text(id, idLength)}
	record, texts := abi.Text(name, nameLength), abi.Texts(values, count)
	abi.Settle()
	defer abi.Leave()
	handle, err := solver.Present(in, record, texts, int(ttl))
	if err != nil {
		return failed(err)
	}
	return abi.Result(7).Text(1, handle).Address()
}

//go:wasmexport witgate:plugin/dns-solver-hooks@0.1.0#poll
func poll(zone, zoneLength, id, idLength, handle, handleLength uint32) unsafe.Pointer {
	in := Zone{abi.Text(zone, zoneLength), abi.Text(id, idLength)}
	change := abi.Text(handle, handleLength)
	abi.Settle()
	defer abi.Leave()
	hook, has := solver.(PollHook)
	if !has {
		return abi.Result(7).Address()
	}
	seconds, err := hook.Poll(in, change)
	if err != nil {
		return failed(err)
	}
	if seconds <= 0 {
		return abi.Result(7).Address()
	}
	return abi.Result(7).Word(1, 1).Word(2, uint32(seconds)).Address()
}

//go:wasmexport witgate:plugin/dns-solver-hooks@0.1.0#cleanup
func cleanup(zone, zoneLength, id, idLength, name, nameLength, values, count, handle, handleLength uint32) unsafe.Pointer {
	in := Zone{abi.Text(zone, zoneLength), abi.Text(id, idLength)}
	record, texts := abi.Text(name, nameLength), abi.Texts(values, count)
	change := abi.Text(handle, handleLength)
	abi.Settle()
	defer abi.Leave()
	if err := solver.Cleanup(in, record, texts, change); err != nil {
		return failed(err)
	}
	return abi.Result(7).Address()
}

// failed lays out the failure of a result whose payload begins at the second word.
func failed(err error) unsafe.Pointer {
	var failure *Failure
	if !errors.As(err, &failure) {
		failure = &Failure{Code: "unavailable", Message: err.Error()}
	}
	result := abi.Result(7).Word(0, 1).Text(1, failure.Code).Text(3, failure.Message)
	if failure.RetryAfter > 0 {
		result.Word(5, 1).Word(6, uint32(failure.RetryAfter))
	}
	return result.Address()
}
