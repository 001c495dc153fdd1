package abi

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The collector asks for the date when it ends, and a component may not call out while it is asked for
// memory, where Go would collect most. So it works only here, where calling out is allowed: when a call
// begins or an import has ended. A call that allocates without end between two of these is stopped by
// `limits.memory`, unless it comes to softBytesMax first, where Go collects wherever it is.

const (
	// garbageBytesMin is from where on collecting is worth it.
	garbageBytesMin = 4 << 20
	softBytesMax    = 40 << 20
	// looksEvery is how many chances to collect are let pass, since each look costs a microsecond.
	looksEvery = 32
)

var (
	heap      = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	chances   int
	threshold uint64 = garbageBytesMin
)

func init() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(softBytesMax)
}

func collect() {
	if chances++; chances%looksEvery != 0 || heapBytes() < threshold {
		return
	}
	runtime.GC()
	live := heapBytes()
	threshold = max(garbageBytesMin, 2*live)
	debug.SetMemoryLimit(int64(max(softBytesMax, 3*live)))
}

func heapBytes() uint64 {
	metrics.Read(heap)
	return heap[0].Value.Uint64()
}
