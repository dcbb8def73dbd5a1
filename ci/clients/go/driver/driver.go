// Package driver speaks the suite's line protocol (see ../../README.md) for the Go clients.
package driver

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"time"
)

// FetchWait is how long a consumer lets the broker hold a fetch.
const FetchWait = 5 * time.Second

// BatchBytesMax bounds a producer's batches, just below what a broker takes by default.
const BatchBytesMax = 1_000_000

// FetchBytesMax is how much a consumer takes at once.
const FetchBytesMax = 20_000_000

// Bootstrap is the broker's address.
var Bootstrap = os.Getenv("BOOTSTRAP")

// Header is [name, value].
type Header struct {
	Name  string
	Value []byte
}

func (h Header) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.Name, h.Value}) }

func (h *Header) UnmarshalJSON(data []byte) error {
	pair := []any{&h.Name, &h.Value}
	return json.Unmarshal(data, &pair)
}

// Record is one record, written or read; a nil key or value is null.
type Record struct {
	Offset   int64    `json:"o"`
	Key      []byte   `json:"k"`
	Value    []byte   `json:"v"`
	Headers  []Header `json:"h"`
	Time     *int64   `json:"ts"`
	TimeType *string  `json:"tt"`
}

// Arguments holds the arguments of every operation.
type Arguments struct {
	Op          string            `json:"op"`
	Topic       string            `json:"topic"`
	Partition   *int32            `json:"partition"`
	Partitions  int32             `json:"partitions"`
	Total       int32             `json:"total"`
	Configs     map[string]string `json:"configs"`
	Key         string            `json:"key"`
	Value       string            `json:"value"`
	Before      int64             `json:"before"`
	Records     []Record          `json:"records"`
	Compression string            `json:"compression"`
	Idempotent  bool              `json:"idempotent"`
	Acks        int16             `json:"acks"`
	Each        bool              `json:"each"`
	Count       int               `json:"count"`
	Bytes       int               `json:"bytes"`
	Offset      json.RawMessage   `json:"offset"`
	TimeoutMs   int64             `json:"timeout_ms"`
	Ts          int64             `json:"ts"`
	Isolation   string            `json:"isolation"`

	// Of group members.
	Group            string          `json:"group"`
	Topics           []string        `json:"topics"`
	Assignor         string          `json:"assignor"`
	Instance         *string         `json:"instance"`
	SessionTimeoutMs int64           `json:"session_timeout_ms"`
	Reset            string          `json:"reset"`
	Commits          string          `json:"commits"`
	How              string          `json:"how"`
	Offsets          []CommitOffset  `json:"offsets"`
	To               json.RawMessage `json:"to"`

	// Of transactions.
	Producer string   `json:"producer"`
	ID       string   `json:"id"`
	Values   [][]byte `json:"values"`
	Commit   bool     `json:"commit"`
	Source   string   `json:"source"`
	Into     string   `json:"target"`
}

// Start answers the offset asked for: a number, or earliest or latest as the client's own values for them.
func (a *Arguments) Start(earliest, latest int64) int64 {
	switch string(a.Offset) {
	case `"earliest"`:
		return earliest
	case `"latest"`:
		return latest
	}
	var offset int64
	if err := json.Unmarshal(a.Offset, &offset); err != nil {
		panic(err)
	}
	return offset
}

// Timeout is the time a consumer has.
func (a *Arguments) Timeout() time.Duration { return time.Duration(a.TimeoutMs) * time.Millisecond }

// Error is what the client reported with Kafka's code.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Operation carries out one operation.
type Operation func(*Arguments) (any, error)

// BulkValue is value index of a bulk.
func BulkValue(index, size int) []byte {
	unit := fmt.Appendf(nil, "%010d ", index)
	return bytes.Repeat(unit, size/len(unit)+1)[:size]
}

// BulkReading sums up values as consume_bulk answers them.
type BulkReading struct {
	count      int
	next       int64
	contiguous bool
	digest     hash.Hash
}

// NewBulkReading is a reading of nothing.
func NewBulkReading() *BulkReading {
	return &BulkReading{contiguous: true, digest: sha256.New()}
}

// Take adds the next record.
func (b *BulkReading) Take(offset int64, value []byte) {
	if b.count > 0 && offset != b.next {
		b.contiguous = false
	}
	b.next = offset + 1
	b.count++
	b.digest.Write(value)
}

// Answer is the sum.
func (b *BulkReading) Answer() any {
	return map[string]any{"count": b.count, "contiguous": b.contiguous, "sha256": hex.EncodeToString(b.digest.Sum(nil))}
}

// Serve answers operations until the input ends. code finds Kafka's error code in a client's error.
func Serve(operations map[string]Operation, code func(error) (int, bool)) {
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := out.Encode(answer(operations, code, line)); err != nil {
			return
		}
	}
}

func answer(operations map[string]Operation, code func(error) (int, bool), line []byte) map[string]any {
	var arguments Arguments
	if err := json.Unmarshal(line, &arguments); err != nil {
		return map[string]any{"error": nil, "message": err.Error()}
	}
	operation, ok := operations[arguments.Op]
	if !ok {
		return map[string]any{"error": nil, "message": "the driver has no operation " + arguments.Op}
	}
	result, err := operation(&arguments)
	if err == nil {
		return map[string]any{"ok": result}
	}
	if found, ok := code(err); ok {
		return map[string]any{"error": found, "message": err.Error()}
	}
	if own := (*Error)(nil); errors.As(err, &own) {
		return map[string]any{"error": own.Code, "message": err.Error()}
	}
	return map[string]any{"error": nil, "message": err.Error()}
}

// Offsets turns acknowledged offsets into what produce answers: negative ones are unknown.
func Offsets(offsets []int64) []any {
	answer := make([]any, len(offsets))
	for i, offset := range offsets {
		if offset >= 0 {
			answer[i] = offset
		}
	}
	return answer
}
