package witgate

import (
	"errors"
	"time"

	"witgate/internal/abi"
)

// State is the small key-value store that the gateway keeps for the plugin, shared by all its
// instances. It survives a swap of the plugin and a reload, and ends with the gateway. Errors are the
// codes of the contract: key-too-long, value-too-long, quota, not-a-counter.
var State store

type store struct{}

// Get is the value of a key, and whether it is there.
func (store) Get(key string) (value []byte, has bool) { return abi.StateGet(key) }

// Set sets a key. With a life of a second or more it expires after that time, else it does not.
func (store) Set(key string, value []byte, life time.Duration) error {
	return codeError(abi.StateSet(key, value, seconds(life)))
}

// Remove removes a key; does nothing when it is absent.
func (store) Remove(key string) { abi.StateRemove(key) }

// Increment adds to a counter and returns its new value. An absent key counts as 0 and then gets this
// life; a present one keeps its own.
func (store) Increment(key string, by int64, life time.Duration) (int64, error) {
	value, code := abi.StateIncrement(key, by, seconds(life))
	return value, codeError(code)
}

func seconds(life time.Duration) uint32 { return uint32(life / time.Second) }

func codeError(code string) error {
	if code == "" {
		return nil
	}
	return errors.New(code)
}
