package main

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"

	"ringlog.ci/clients/driver"
)

var transactional = map[string]sarama.SyncProducer{}

func txnOpen(a *driver.Arguments) (any, error) {
	config := config()
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Return.Errors = true
	config.Producer.Transaction.ID = a.ID
	config.Producer.Transaction.Timeout = a.Timeout()
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Net.MaxOpenRequests = 1
	made, err := sarama.NewSyncProducer([]string{driver.Bootstrap}, config)
	if err == nil {
		transactional[a.Producer] = made
	}
	return nil, err
}

func txnBegin(a *driver.Arguments) (any, error) { return nil, transactional[a.Producer].BeginTxn() }

func txnSend(a *driver.Arguments) (any, error) {
	messages := make([]*sarama.ProducerMessage, len(a.Values))
	for i, value := range a.Values {
		messages[i] = &sarama.ProducerMessage{Topic: a.Topic, Partition: *a.Partition, Value: sarama.ByteEncoder(value)}
	}
	err := transactional[a.Producer].SendMessages(messages)
	if several := (sarama.ProducerErrors)(nil); errors.As(err, &several) {
		return nil, several[0].Err
	}
	return nil, err
}

func txnEnd(a *driver.Arguments) (any, error) {
	if a.Commit {
		return nil, transactional[a.Producer].CommitTxn()
	}
	return nil, transactional[a.Producer].AbortTxn()
}

func txnClose(a *driver.Arguments) (any, error) {
	producer := transactional[a.Producer]
	delete(transactional, a.Producer)
	return nil, producer.Close()
}

// copying is the handler of a group that writes what it reads, inside one transaction with the offsets of its session.
type copying struct {
	a        *driver.Arguments
	producer sarama.SyncProducer
	messages chan *sarama.ConsumerMessage
	err      error
	done     context.CancelFunc
}

func (c *copying) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (c *copying) Setup(session sarama.ConsumerGroupSession) error {
	go func() { c.err = c.copy(session); c.done() }()
	return nil
}

func (c *copying) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			c.messages <- message
		case <-session.Context().Done():
			return nil
		}
	}
}

func (c *copying) copy(session sarama.ConsumerGroupSession) error {
	if err := c.producer.BeginTxn(); err != nil {
		return err
	}
	metadata := sarama.NewConsumerGroupMetadataFromSession(session, c.a.Group, nil)
	deadline := time.After(40 * time.Second)
	for range c.a.Count {
		select {
		case message := <-c.messages:
			value := sarama.ByteEncoder(append([]byte("copy of "), message.Value...))
			if _, _, err := c.producer.SendMessage(&sarama.ProducerMessage{Topic: c.a.Into, Partition: message.Partition, Value: value}); err != nil {
				return err
			}
			if err := c.producer.AddMessageToTxnWithGroupMetadata(message, metadata, nil); err != nil {
				return err
			}
		case <-deadline:
			return errors.New("the source did not give what was asked for within 40 s")
		}
	}
	if c.a.Commit {
		return c.producer.CommitTxn()
	}
	return c.producer.AbortTxn()
}

func txnCopy(a *driver.Arguments) (any, error) {
	a.TimeoutMs, a.Producer = 30_000, "copy"
	if _, err := txnOpen(a); err != nil {
		return nil, err
	}
	defer func() { _, _ = txnClose(a) }()
	config := config()
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = driver.Heartbeat
	config.Consumer.MaxWaitTime = driver.GroupFetchWait
	group, err := sarama.NewConsumerGroup([]string{driver.Bootstrap}, a.Group, config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = group.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	handler := &copying{a: a, producer: transactional["copy"], messages: make(chan *sarama.ConsumerMessage, 1000), done: cancel}
	if err := group.Consume(ctx, []string{a.Source}, handler); err != nil {
		return nil, err
	}
	<-ctx.Done()
	return a.Count, handler.err
}
