package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"ringlog.ci/clients/driver"
)

var strategies = map[string]func() sarama.BalanceStrategy{"range": sarama.NewBalanceStrategyRange, "roundrobin": sarama.NewBalanceStrategyRoundRobin,
	"sticky": sarama.NewBalanceStrategySticky, "cooperative-sticky": sarama.NewBalanceStrategyCooperativeSticky}

// member is a consumer group and its handler. Claims begin and end one by one, so they are the truth about what is assigned.
type member struct {
	group   sarama.ConsumerGroup
	name    string
	auto    bool
	state   *driver.State
	stop    context.CancelFunc
	ended   chan struct{}
	lock    sync.Mutex
	session sarama.ConsumerGroupSession
}

func join(a *driver.Arguments, state *driver.State) (driver.Member, error) {
	config := config()
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategies[a.Assignor]()}
	config.Consumer.Group.Session.Timeout = time.Duration(a.SessionTimeoutMs) * time.Millisecond
	config.Consumer.Group.Heartbeat.Interval = driver.Heartbeat
	config.Consumer.Offsets.AutoCommit.Enable = a.Commits == "auto"
	config.Consumer.Offsets.AutoCommit.Interval = driver.AutoCommit
	config.Consumer.Offsets.Initial = sarama.OffsetNewest
	if a.Reset == "earliest" {
		config.Consumer.Offsets.Initial = sarama.OffsetOldest
	}
	if a.Isolation == "read_committed" {
		config.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	if a.Instance != nil {
		config.Consumer.Group.InstanceId = *a.Instance
	}
	config.Consumer.MaxWaitTime = driver.GroupFetchWait
	config.Consumer.Return.Errors = true
	config.Metadata.RefreshFrequency = driver.MetadataMaxAge
	group, err := sarama.NewConsumerGroup([]string{driver.Bootstrap}, a.Group, config)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	joined := &member{group: group, name: a.Group, auto: a.Commits == "auto", state: state, stop: stop, ended: make(chan struct{})}
	go func() {
		for err := range group.Errors() {
			state.Fail(err, code)
		}
	}()
	go func() {
		defer close(joined.ended)
		for ctx.Err() == nil {
			if err := group.Consume(ctx, a.Topics, joined); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
				state.Fail(err, code)
				time.Sleep(200 * time.Millisecond)
			}
		}
	}()
	return joined, nil
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	m.session = session
	m.lock.Unlock()
	m.state.Assign(nil)
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	m.session = nil
	m.lock.Unlock()
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	mine := map[string][]int32{claim.Topic(): {claim.Partition()}}
	m.state.Assign(mine)
	defer m.state.Revoke(mine)
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.state.Take(message.Topic, message.Partition, message.Offset, message.Value)
			if m.auto {
				session.MarkMessage(message, "")
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) Assigned() ([]driver.TopicPartition, error) { return nil, nil }

// Commit has no way to wait for an error but the errors channel; sarama's own Commit is synchronous.
func (m *member) Commit(_ string, offsets []driver.CommitOffset) error {
	m.lock.Lock()
	session := m.session
	m.lock.Unlock()
	if session == nil {
		return errors.New("there is no session to commit in")
	}
	for _, one := range offsets {
		session.MarkOffset(one.Topic, one.Partition, one.Offset, "")
	}
	session.Commit()
	return nil
}

func (m *member) Committed(topic string, partition int32) (int64, error) {
	admin, err := admin()
	if err != nil {
		return -1, err
	}
	answer, err := admin.ListConsumerGroupOffsets(m.name, map[string][]int32{topic: {partition}})
	if err != nil {
		return -1, err
	}
	block := answer.GetBlock(topic, partition)
	if block.Err != sarama.ErrNoError {
		return -1, block.Err
	}
	return block.Offset, nil
}

func (m *member) Pause(partitions map[string][]int32)  { m.group.Pause(partitions) }
func (m *member) Resume(partitions map[string][]int32) { m.group.Resume(partitions) }

func (m *member) Leave() error {
	m.stop()
	<-m.ended
	return m.group.Close()
}
