package abi

// Configure starts the plugin and returns the hooks it wants; Export of a world sets it.
var Configure func(config string) (hooks []string, err error)
