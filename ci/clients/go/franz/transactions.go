package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ringlog.ci/clients/driver"
)

var transactional = map[string]*kgo.Client{}

func txnOptions(a *driver.Arguments) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(driver.Bootstrap), kgo.TransactionalID(a.ID), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionTimeout(a.Timeout())}
}

// txnOpen asks for the producer id at once: franz-go else waits until it first produces, and nobody would be fenced yet.
func txnOpen(a *driver.Arguments) (any, error) {
	client, err := kgo.NewClient(txnOptions(a)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := limit()
	defer cancel()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return nil, err
	}
	transactional[a.Producer] = client
	return nil, nil
}

func txnBegin(a *driver.Arguments) (any, error) {
	return nil, transactional[a.Producer].BeginTransaction()
}

func txnSend(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	records := make([]*kgo.Record, len(a.Values))
	for i, value := range a.Values {
		records[i] = &kgo.Record{Topic: a.Topic, Partition: *a.Partition, Value: value}
	}
	return nil, transactional[a.Producer].ProduceSync(ctx, records...).FirstErr()
}

func txnEnd(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	client := transactional[a.Producer]
	if err := client.Flush(ctx); err != nil {
		return nil, err
	}
	return nil, client.EndTransaction(ctx, kgo.TransactionEndTry(a.Commit))
}

func txnClose(a *driver.Arguments) (any, error) {
	client := transactional[a.Producer]
	delete(transactional, a.Producer)
	client.Close()
	return nil, nil
}

// txnCopy uses the client's own loop for it, the GroupTransactSession, which sends the offsets itself.
func txnCopy(a *driver.Arguments) (any, error) {
	a.TimeoutMs = 30_000
	session, err := kgo.NewGroupTransactSession(append(txnOptions(a), kgo.ConsumerGroup(a.Group), kgo.ConsumeTopics(a.Source), kgo.RequireStableFetchOffsets(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(driver.GroupFetchWait),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(driver.Heartbeat))...)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := session.Begin(); err != nil {
		return nil, err
	}
	read := 0
	for read < a.Count && ctx.Err() == nil {
		fetches := session.PollRecords(ctx, a.Count-read)
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) {
				return nil, failed.Err
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			read++
			session.Produce(ctx, &kgo.Record{Topic: a.Into, Partition: r.Partition, Value: append([]byte("copy of "), r.Value...)}, nil)
		})
	}
	end, cancelEnd := limit()
	defer cancelEnd()
	committed, err := session.End(end, kgo.TransactionEndTry(a.Commit))
	if err == nil && committed != a.Commit {
		return nil, errors.New("the session ended its transaction otherwise than asked")
	}
	return read, err
}
