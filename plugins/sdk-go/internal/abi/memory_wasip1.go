package abi

import (
	"unsafe"
)

// Values cross the border as the canonical ABI of the component model lays them out: addresses and
// lengths are of 32 bits there, and of 64 in Go.

// area is where the gateway writes a result that does not fit into one number.
var area [4]uint64

// taken are the blocks that the gateway asked for; they are held until their contents have owners.
var taken []any

// given is what the result of the present call points to.
var given []any

//go:linkname sbrk runtime.sbrk
func sbrk(size uintptr) unsafe.Pointer

// A component may not call out while it is asked for memory. Go does when its scheduler looks at the clock,
// which can happen at every entry; so the WASI adapter is told to answer by itself, with the last time it
// knows, whenever the gateway may ask: between calls, and while an import runs.
//
//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func pauseClock(isPaused bool)

func init() { pauseClock(true) }

// Enter begins a call.
func Enter() {
	pauseClock(false)
	collect()
}

// Leave ends a call.
func Leave() { pauseClock(true) }

// allocate gives the gateway memory for what it hands over.
//
//go:wasmexport cabi_realloc
func allocate(_ unsafe.Pointer, _, align, size uintptr) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(&area)
	}
	if align == 1 {
		block := make([]byte, size)
		taken = append(taken, block)
		return unsafe.Pointer(unsafe.SliceData(block))
	}
	block := make([]uint64, (size+7)/8)
	taken = append(taken, block)
	return unsafe.Pointer(unsafe.SliceData(block))
}

// allocateForAdapter is for the WASI adapter, which asks while Go itself is starting: there is no heap yet.
//
//go:wasmexport cabi_realloc_adapter
func allocateForAdapter(_ unsafe.Pointer, _, align, size uintptr) unsafe.Pointer {
	start := uintptr(sbrk(size + align))
	return unsafe.Pointer((start + align - 1) &^ (align - 1))
}

// settle ends an import, or the taking of a call's values: lets go of the gateway's blocks, which what was
// read out of them holds now.
func settle() {
	clear(taken)
	taken = taken[:0]
	pauseClock(false)
	collect()
}

func word(at uintptr) uint32 { return *(*uint32)(unsafe.Add(unsafe.Pointer(&area), at)) }

func short(at uintptr) uint16 { return *(*uint16)(unsafe.Add(unsafe.Pointer(&area), at)) }

func isSet(at uintptr) bool { return *(*byte)(unsafe.Add(unsafe.Pointer(&area), at)) != 0 }

// result is where an import is to write; it begins one, and settle ends it.
func result() unsafe.Pointer {
	pauseClock(true)
	return unsafe.Pointer(&area)
}

// Text takes a text over from the gateway.
func Text(address, length uint32) string {
	if length == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Pointer(uintptr(address))), length)
}

// Bytes takes bytes over from the gateway.
func Bytes(address, length uint32) []byte {
	if length == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(address))), length)
}

// Texts takes a list of texts over from the gateway.
func Texts(address, length uint32) []string {
	words := words(address, 2*length)
	texts := make([]string, length)
	for i := range texts {
		texts[i] = Text(words[2*i], words[2*i+1])
	}
	return texts
}

func pairs(address, length uint32) []Pair {
	words := words(address, 4*length)
	pairs := make([]Pair, length)
	for i := range pairs {
		four := words[4*i:]
		pairs[i] = Pair{Text(four[0], four[1]), Text(four[2], four[3])}
	}
	return pairs
}

func words(address, count uint32) []uint32 {
	if count == 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(uintptr(address))), count)
}

func textAt(at uintptr) string { return Text(word(at), word(at+4)) }

// settled is for the end of an import: everything has been read.
func settled[T any](value T) T {
	settle()
	return value
}

// Lowered is the result of a call, laid out for the gateway. It stays until the next call.
type Lowered struct{ words []uint32 }

// Result begins a result of so many words.
func Result(words int) *Lowered {
	clear(given)
	given = given[:0]
	lowered := &Lowered{make([]uint32, words)}
	given = append(given, lowered.words)
	return lowered
}

// Word sets a number.
func (l *Lowered) Word(at int, value uint32) *Lowered {
	l.words[at] = value
	return l
}

// Text sets a text, which takes two words.
func (l *Lowered) Text(at int, text string) *Lowered {
	l.words[at], l.words[at+1] = lowerText(text)
	return l
}

// Texts sets a list of texts, which takes two words.
func (l *Lowered) Texts(at int, texts []string) *Lowered {
	l.words[at], l.words[at+1] = lowerTexts(texts...)
	return l
}

// Pairs sets a list of pairs, which takes two words.
func (l *Lowered) Pairs(at int, pairs []Pair) *Lowered {
	l.words[at], l.words[at+1] = lowerPairs(pairs)
	return l
}

// Address is what the export returns.
func (l *Lowered) Address() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(l.words)) }

func lowerText(text string) (address, length uint32) {
	data := unsafe.StringData(text)
	// Held by a global, so that it is on the heap and stays where it is.
	given = append(given, data)
	return uint32(uintptr(unsafe.Pointer(data))), uint32(len(text))
}

func lowerTexts(texts ...string) (address, length uint32) {
	words := make([]uint32, 2*len(texts))
	for i, text := range texts {
		words[2*i], words[2*i+1] = lowerText(text)
	}
	given = append(given, words)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(words)))), uint32(len(texts))
}

func lowerPairs(pairs []Pair) (address, length uint32) {
	words := make([]uint32, 4*len(pairs))
	for i, pair := range pairs {
		words[4*i], words[4*i+1] = lowerText(pair[0])
		words[4*i+2], words[4*i+3] = lowerText(pair[1])
	}
	given = append(given, words)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(words)))), uint32(len(pairs))
}

// TakeText takes over the one text that a call came with.
func TakeText(address, length uint32) string { return settled(Text(address, length)) }

// TakeBytes takes over the bytes that a call came with.
func TakeBytes(address, length uint32) []byte { return settled(Bytes(address, length)) }

// Settle is for calls with several values, once all have been read.
func Settle() { settle() }
