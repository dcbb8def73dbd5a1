package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"ringlog.ci/clients/driver"
)

var groupBalancers = map[string]kafka.GroupBalancer{"range": kafka.RangeGroupBalancer{}, "roundrobin": kafka.RoundRobinGroupBalancer{}}

var memberNumber atomic.Int64

// member is a Reader. A Reader tells nobody what it was assigned, so the group is described and the member found by its client id.
type member struct {
	reader   *kafka.Reader
	group    string
	clientID string
	state    *driver.State
	stop     context.CancelFunc
	ended    chan struct{}
}

func join(a *driver.Arguments, state *driver.State) (driver.Member, error) {
	id := fmt.Sprintf("%s-%d-%d", a.Group, time.Now().UnixNano(), memberNumber.Add(1))
	config := kafka.ReaderConfig{Brokers: []string{driver.Bootstrap}, GroupID: a.Group, GroupTopics: a.Topics, MinBytes: 1, MaxBytes: driver.FetchBytesMax,
		Dialer: &kafka.Dialer{Timeout: 10 * time.Second, ClientID: id}, MaxWait: driver.GroupFetchWait, ReadLagInterval: -1,
		GroupBalancers: []kafka.GroupBalancer{groupBalancers[a.Assignor]}, HeartbeatInterval: driver.Heartbeat,
		SessionTimeout: time.Duration(a.SessionTimeoutMs) * time.Millisecond, RebalanceTimeout: 10 * time.Second, JoinGroupBackoff: 500 * time.Millisecond,
		WatchPartitionChanges: true, PartitionWatchInterval: driver.MetadataMaxAge, StartOffset: kafka.LastOffset}
	if a.Reset == "earliest" {
		config.StartOffset = kafka.FirstOffset
	}
	if a.Commits == "async" {
		config.CommitInterval = driver.AutoCommit
	}
	if a.Isolation == "read_committed" {
		config.IsolationLevel = kafka.ReadCommitted
	}
	ctx, stop := context.WithCancel(context.Background())
	joined := &member{kafka.NewReader(config), a.Group, id, state, stop, make(chan struct{})}
	next := joined.reader.FetchMessage
	if a.Commits == "auto" {
		next = joined.reader.ReadMessage
	}
	go func() {
		defer close(joined.ended)
		for ctx.Err() == nil {
			message, err := next(ctx)
			if err == nil {
				state.Take(message.Topic, int32(message.Partition), message.Offset, message.Value)
			} else if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return
			} else {
				state.Fail(err, code)
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return joined, nil
}

func (m *member) Assigned() ([]driver.TopicPartition, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{m.group}})
	if err != nil {
		return nil, err
	}
	found := []driver.TopicPartition{}
	for _, group := range answer.Groups {
		if group.Error != nil {
			return nil, group.Error
		}
		if group.GroupState != "Stable" {
			return found, nil
		}
		for _, one := range group.Members {
			if one.ClientID == m.clientID {
				for _, topic := range one.MemberAssignments.Topics {
					for _, partition := range topic.Partitions {
						found = append(found, driver.TopicPartition{Topic: topic.Topic, Partition: int32(partition)})
					}
				}
			}
		}
	}
	return found, nil
}

func (m *member) Commit(_ string, offsets []driver.CommitOffset) error {
	ctx, cancel := limit()
	defer cancel()
	messages := make([]kafka.Message, len(offsets))
	for i, one := range offsets {
		messages[i] = kafka.Message{Topic: one.Topic, Partition: int(one.Partition), Offset: one.Offset - 1}
	}
	return m.reader.CommitMessages(ctx, messages...)
}

func (m *member) Committed(topic string, partition int32) (int64, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: m.group, Topics: map[string][]int{topic: {int(partition)}}})
	if err != nil {
		return -1, err
	}
	if answer.Error != nil {
		return -1, answer.Error
	}
	return answer.Topics[topic][0].CommittedOffset, answer.Topics[topic][0].Error
}

func (m *member) Leave() error {
	m.stop()
	<-m.ended
	return m.reader.Close()
}
