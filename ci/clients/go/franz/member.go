package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ringlog.ci/clients/driver"
)

var balancers = map[string]kgo.GroupBalancer{"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(),
	"cooperative-sticky": kgo.CooperativeStickyBalancer()}

type member struct {
	client *kgo.Client
	group  string
	state  *driver.State
	stop   context.CancelFunc
	ended  chan struct{}
}

func isolation(name string) kgo.Opt {
	if name == "read_committed" {
		return kgo.FetchIsolationLevel(kgo.ReadCommitted())
	}
	return kgo.FetchIsolationLevel(kgo.ReadUncommitted())
}

func join(a *driver.Arguments, state *driver.State) (driver.Member, error) {
	reset := kgo.NewOffset().AtEnd()
	if a.Reset == "earliest" {
		reset = kgo.NewOffset().AtStart()
	}
	options := []kgo.Opt{kgo.SeedBrokers(driver.Bootstrap), kgo.ConsumerGroup(a.Group), kgo.ConsumeTopics(a.Topics...), kgo.Balancers(balancers[a.Assignor]),
		kgo.SessionTimeout(time.Duration(a.SessionTimeoutMs) * time.Millisecond), kgo.HeartbeatInterval(driver.Heartbeat), kgo.ConsumeResetOffset(reset),
		kgo.MetadataMaxAge(driver.MetadataMaxAge), kgo.MetadataMinAge(200 * time.Millisecond), kgo.FetchMaxWait(driver.GroupFetchWait), isolation(a.Isolation),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { state.Assign(partitions) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { state.Revoke(partitions) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { state.Revoke(partitions) })}
	if a.Commits == "auto" {
		options = append(options, kgo.AutoCommitInterval(driver.AutoCommit))
	} else {
		options = append(options, kgo.DisableAutoCommit())
	}
	if a.Instance != nil {
		options = append(options, kgo.InstanceID(*a.Instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	joined := &member{client, a.Group, state, stop, make(chan struct{})}
	go joined.poll(ctx)
	return joined, nil
}

func (m *member) poll(ctx context.Context) {
	defer close(m.ended)
	for ctx.Err() == nil {
		fetches := m.client.PollFetches(ctx)
		if fetches.IsClientClosed() {
			return
		}
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.Canceled) {
				m.state.Fail(failed.Err, code)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) { m.state.Take(r.Topic, r.Partition, r.Offset, r.Value) })
	}
}

func (m *member) Assigned() ([]driver.TopicPartition, error) { return nil, nil }

func (m *member) Commit(how string, offsets []driver.CommitOffset) error {
	records := make([]*kgo.Record, len(offsets))
	for i, one := range offsets {
		records[i] = &kgo.Record{Topic: one.Topic, Partition: one.Partition, Offset: one.Offset - 1, LeaderEpoch: -1}
	}
	ctx, cancel := limit()
	if how == "sync" {
		defer cancel()
		return m.client.CommitRecords(ctx, records...)
	}
	go func() {
		defer cancel()
		if err := m.client.CommitRecords(ctx, records...); err != nil {
			m.state.Fail(fmt.Errorf("commit: %w", err), code)
		}
	}()
	return nil
}

func (m *member) Committed(topic string, partition int32) (int64, error) {
	ctx, cancel := limit()
	defer cancel()
	offsets, err := admin.FetchOffsets(ctx, m.group)
	if err != nil {
		return -1, err
	}
	if found, ok := offsets.Lookup(topic, partition); ok {
		return found.At, found.Err
	}
	return -1, nil
}

func (m *member) Pause(partitions map[string][]int32)  { m.client.PauseFetchPartitions(partitions) }
func (m *member) Resume(partitions map[string][]int32) { m.client.ResumeFetchPartitions(partitions) }

func (m *member) Seek(a *driver.Arguments) error {
	target, err := a.Target(-2, -1)
	if err != nil {
		return err
	}
	ask := *a
	if target.Ts != nil {
		ask.Ts = *target.Ts
		found, err := offsetForTime(&ask)
		if err != nil {
			return err
		}
		target.Offset = found.(int64)
	} else if target.Offset < 0 {
		ends, err := watermarks(&ask)
		if err != nil {
			return err
		}
		target.Offset = ends.([]int64)[target.Offset+2]
	}
	m.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{a.Topic: {*a.Partition: {Epoch: -1, Offset: target.Offset}}})
	return nil
}

func (m *member) Leave() error {
	m.stop()
	<-m.ended
	m.client.CloseAllowingRebalance()
	return nil
}
