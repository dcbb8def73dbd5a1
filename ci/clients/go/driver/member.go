package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// What every member is set to, so that rebalances do not wait for a client's default heartbeat.
const (
	Heartbeat      = 500 * time.Millisecond
	AutoCommit     = 200 * time.Millisecond
	MetadataMaxAge = 2 * time.Second
	GroupFetchWait = 500 * time.Millisecond
)

// TopicPartition is [topic, partition].
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (p TopicPartition) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{p.Topic, p.Partition})
}

// CommitOffset is [topic, partition, offset].
type CommitOffset struct {
	TopicPartition
	Offset int64
}

func (c *CommitOffset) UnmarshalJSON(data []byte) error {
	triple := []any{&c.Topic, &c.Partition, &c.Offset}
	return json.Unmarshal(data, &triple)
}

type taken struct {
	TopicPartition
	offset int64
	value  []byte
}

func (t taken) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{t.Topic, t.Partition, t.offset, t.value})
}

// State is what happened to a member; its client's callbacks write it from any goroutine.
type State struct {
	lock        sync.Mutex
	assigned    map[TopicPartition]bool
	assignments int
	revoked     []TopicPartition
	records     []taken
	errors      [][2]any
	positions   map[TopicPartition]int64
}

// NewState is the state of a member that has just joined.
func NewState() *State {
	return &State{assigned: map[TopicPartition]bool{}, revoked: []TopicPartition{}, positions: map[TopicPartition]int64{}}
}

// Assign adds partitions.
func (s *State) Assign(partitions map[string][]int32) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.assignments++
	for topic, numbers := range partitions {
		for _, number := range numbers {
			s.assigned[TopicPartition{topic, number}] = true
		}
	}
}

// Revoke takes partitions away.
func (s *State) Revoke(partitions map[string][]int32) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for topic, numbers := range partitions {
		for _, number := range numbers {
			one := TopicPartition{topic, number}
			delete(s.assigned, one)
			delete(s.positions, one)
			s.revoked = append(s.revoked, one)
		}
	}
}

// Take notes a record.
func (s *State) Take(topic string, partition int32, offset int64, value []byte) {
	s.lock.Lock()
	defer s.lock.Unlock()
	where := TopicPartition{topic, partition}
	s.records = append(s.records, taken{where, offset, slices.Clone(value)})
	s.positions[where] = offset + 1
}

// Fail notes an error.
func (s *State) Fail(err error, code func(error) (int, bool)) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if found, ok := code(err); ok {
		s.errors = append(s.errors, [2]any{found, err.Error()})
	} else {
		s.errors = append(s.errors, [2]any{nil, err.Error()})
	}
}

// Positions answers the next offset of each assigned partition that was read from.
func (s *State) Positions() []CommitOffset {
	s.lock.Lock()
	defer s.lock.Unlock()
	positions := []CommitOffset{}
	for where, offset := range s.positions {
		positions = append(positions, CommitOffset{where, offset})
	}
	return positions
}

func (s *State) answer(assigned []TopicPartition) any {
	s.lock.Lock()
	defer s.lock.Unlock()
	if assigned == nil {
		assigned = []TopicPartition{}
		for one := range s.assigned {
			assigned = append(assigned, one)
		}
	}
	slices.SortFunc(assigned, func(a, b TopicPartition) int {
		return slices.Compare([]string{a.Topic, fmt.Sprint(a.Partition)}, []string{b.Topic, fmt.Sprint(b.Partition)})
	})
	records, failed := s.records, s.errors
	if records == nil {
		records = []taken{}
	}
	if failed == nil {
		failed = [][2]any{}
	}
	answer := map[string]any{"assigned": assigned, "assignments": s.assignments, "revoked": slices.Clone(s.revoked), "records": records, "errors": failed}
	s.records, s.errors = nil, nil
	return answer
}

// Target is where to seek: a number, earliest, latest, or the first record of a time.
type Target struct {
	Offset int64
	Ts     *int64
}

// Target reads the argument `to`.
func (a *Arguments) Target(earliest, latest int64) (Target, error) {
	switch string(a.To) {
	case `"earliest"`:
		return Target{Offset: earliest}, nil
	case `"latest"`:
		return Target{Offset: latest}, nil
	}
	var at struct {
		Ts *int64 `json:"ts"`
	}
	if json.Unmarshal(a.To, &at) == nil && at.Ts != nil {
		return Target{Ts: at.Ts}, nil
	}
	var offset int64
	err := json.Unmarshal(a.To, &offset)
	return Target{Offset: offset}, err
}

// Member is one client's membership of a group.
type Member interface {
	// Assigned answers the partitions, or nil where the state's own list is the truth.
	Assigned() ([]TopicPartition, error)
	Commit(how string, offsets []CommitOffset) error
	Committed(topic string, partition int32) (int64, error)
	Leave() error
}

// Pauser is a member that can pause.
type Pauser interface {
	Pause(partitions map[string][]int32)
	Resume(partitions map[string][]int32)
}

// Seeker is a member that can seek.
type Seeker interface {
	Seek(a *Arguments) error
}

var errCannot = errors.New("this client cannot do that")

// MemberOperations are the operations of a group member; join begins one.
func MemberOperations(join func(*Arguments, *State) (Member, error)) map[string]Operation {
	var member Member
	var state *State
	return map[string]Operation{
		"join": func(a *Arguments) (any, error) {
			var err error
			state = NewState()
			member, err = join(a, state)
			return nil, err
		},
		"state": func(*Arguments) (any, error) {
			assigned, err := member.Assigned()
			if err != nil {
				return nil, err
			}
			return state.answer(assigned), nil
		},
		"commit": func(a *Arguments) (any, error) {
			offsets := a.Offsets
			if offsets == nil {
				offsets = state.Positions()
			}
			return nil, member.Commit(a.How, offsets)
		},
		"committed": func(a *Arguments) (any, error) { return member.Committed(a.Topic, *a.Partition) },
		"pause": func(a *Arguments) (any, error) {
			if pauser, ok := member.(Pauser); ok {
				pauser.Pause(map[string][]int32{a.Topic: {*a.Partition}})
				return nil, nil
			}
			return nil, errCannot
		},
		"resume": func(a *Arguments) (any, error) {
			if pauser, ok := member.(Pauser); ok {
				pauser.Resume(map[string][]int32{a.Topic: {*a.Partition}})
				return nil, nil
			}
			return nil, errCannot
		},
		"seek": func(a *Arguments) (any, error) {
			if seeker, ok := member.(Seeker); ok {
				return nil, seeker.Seek(a)
			}
			return nil, errCannot
		},
		"leave": func(*Arguments) (any, error) {
			leaving := member
			member = nil
			return nil, leaving.Leave()
		},
	}
}
