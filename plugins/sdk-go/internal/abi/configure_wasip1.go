package abi

import "unsafe"

//go:wasmexport witgate:plugin/plugin@0.1.0#configure
func configure(address, length uint32) unsafe.Pointer {
	config := TakeText(address, length)
	defer Leave()
	if Configure == nil {
		return Result(3).Word(0, 1).Text(1, "nothing is exported: call Export of the world in init").Address()
	}
	hooks, err := Configure(config)
	if err != nil {
		return Result(3).Word(0, 1).Text(1, err.Error()).Address()
	}
	return Result(3).Texts(1, hooks).Address()
}
