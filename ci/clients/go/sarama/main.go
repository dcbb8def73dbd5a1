// Command sarama is the suite's driver for IBM/sarama.
package main

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"github.com/IBM/sarama"

	"ringlog.ci/clients/driver"
)

var codecs = map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}

type producerKey struct {
	compression string
	idempotent  bool
	acks        int16
	manual      bool
}

var (
	producers  = map[producerKey]sarama.AsyncProducer{}
	madeClient sarama.Client
	madeAdmin  sarama.ClusterAdmin
)

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.ChannelBufferSize = 4096
	return config
}

func code(err error) (int, bool) {
	var found sarama.KError
	if errors.As(err, &found) {
		return int(found), true
	}
	return 0, false
}

func client() (sarama.Client, error) {
	if madeClient == nil {
		made, err := sarama.NewClient([]string{driver.Bootstrap}, config())
		if err != nil {
			return nil, err
		}
		madeClient = made
	}
	return madeClient, nil
}

func admin() (sarama.ClusterAdmin, error) {
	if madeAdmin == nil {
		made, err := sarama.NewClusterAdmin([]string{driver.Bootstrap}, config())
		if err != nil {
			return nil, err
		}
		madeAdmin = made
	}
	return madeAdmin, nil
}

func producer(key producerKey) (sarama.AsyncProducer, error) {
	if found, ok := producers[key]; ok {
		return found, nil
	}
	config := config()
	config.Producer.Compression = codecs[key.compression]
	config.Producer.Idempotent = key.idempotent
	config.Producer.RequiredAcks = sarama.RequiredAcks(key.acks)
	config.Producer.Return.Successes = true
	config.Producer.MaxMessageBytes = driver.BatchBytesMax
	config.Producer.Flush.Frequency = 20 * time.Millisecond
	config.Producer.Flush.Bytes = 200_000
	if key.idempotent {
		config.Net.MaxOpenRequests = 1
	}
	if key.manual {
		config.Producer.Partitioner = sarama.NewManualPartitioner
	}
	made, err := sarama.NewAsyncProducer([]string{driver.Bootstrap}, config)
	if err == nil {
		producers[key] = made
	}
	return made, err
}

func send(a *driver.Arguments, messages []*sarama.ProducerMessage, each bool) (any, error) {
	producer, err := producer(producerKey{a.Compression, a.Idempotent, a.Acks, a.Partition != nil})
	if err != nil {
		return nil, err
	}
	offsets, failed, waiting := make([]int64, len(messages)), error(nil), 0
	receive := func() {
		select {
		case sent := <-producer.Successes():
			offsets[sent.Metadata.(int)] = sent.Offset
		case refused := <-producer.Errors():
			failed = refused.Err
		}
		waiting--
	}
	for i, message := range messages {
		message.Metadata = i
		for sent := false; !sent; {
			select {
			case producer.Input() <- message:
				sent = true
				waiting++
			case ok := <-producer.Successes():
				offsets[ok.Metadata.(int)] = ok.Offset
				waiting--
			case refused := <-producer.Errors():
				failed = refused.Err
				waiting--
			}
		}
		for each && waiting > 0 {
			receive()
		}
	}
	for waiting > 0 {
		receive()
	}
	if failed != nil {
		return nil, failed
	}
	if a.Acks == 0 {
		for i := range offsets {
			offsets[i] = -1
		}
	}
	return driver.Offsets(offsets), nil
}

// bytesOf keeps null and empty apart: a nil Encoder is null.
func bytesOf(data []byte) sarama.Encoder {
	if data == nil {
		return nil
	}
	return sarama.ByteEncoder(data)
}

func produce(a *driver.Arguments) (any, error) {
	messages := make([]*sarama.ProducerMessage, len(a.Records))
	for i, r := range a.Records {
		messages[i] = &sarama.ProducerMessage{Topic: a.Topic, Key: bytesOf(r.Key), Value: bytesOf(r.Value)}
		if a.Partition != nil {
			messages[i].Partition = *a.Partition
		}
		if r.Time != nil {
			messages[i].Timestamp = time.UnixMilli(*r.Time)
		}
		for _, header := range r.Headers {
			messages[i].Headers = append(messages[i].Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
	}
	return send(a, messages, a.Each)
}

func produceBulk(a *driver.Arguments) (any, error) {
	messages := make([]*sarama.ProducerMessage, a.Count)
	for i := range messages {
		messages[i] = &sarama.ProducerMessage{Topic: a.Topic, Partition: *a.Partition, Value: sarama.ByteEncoder(driver.BulkValue(i, a.Bytes))}
	}
	a.Acks = -1
	offsets, err := send(a, messages, false)
	if err != nil {
		return nil, err
	}
	return offsets.([]any)[0], nil
}

func read(a *driver.Arguments, take func(*sarama.ConsumerMessage)) error {
	config := config()
	config.Consumer.MaxWaitTime = driver.FetchWait
	config.Consumer.Return.Errors = true
	if a.Isolation == "read_committed" {
		config.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	consumer, err := sarama.NewConsumer([]string{driver.Bootstrap}, config)
	if err != nil {
		return err
	}
	defer func() { _ = consumer.Close() }()
	partition, err := consumer.ConsumePartition(a.Topic, *a.Partition, a.Start(sarama.OffsetOldest, sarama.OffsetNewest))
	if err != nil {
		return err
	}
	defer partition.AsyncClose()
	deadline := time.After(a.Timeout())
	for left := a.Count; left > 0; left-- {
		select {
		case message := <-partition.Messages():
			take(message)
		case failed := <-partition.Errors():
			return failed.Err
		case <-deadline:
			return nil
		}
	}
	return nil
}

func consume(a *driver.Arguments) (any, error) {
	records := []driver.Record{}
	err := read(a, func(m *sarama.ConsumerMessage) {
		at := m.Timestamp.UnixMilli()
		record := driver.Record{Offset: m.Offset, Key: m.Key, Value: m.Value, Time: &at, Headers: []driver.Header{}}
		for _, header := range m.Headers {
			record.Headers = append(record.Headers, driver.Header{Name: string(header.Key), Value: header.Value})
		}
		records = append(records, record)
	})
	return records, err
}

func consumeBulk(a *driver.Arguments) (any, error) {
	reading := driver.NewBulkReading()
	err := read(a, func(m *sarama.ConsumerMessage) { reading.Take(m.Offset, m.Value) })
	return reading.Answer(), err
}

func offset(a *driver.Arguments, at int64) (int64, error) {
	client, err := client()
	if err != nil {
		return 0, err
	}
	if err := client.RefreshMetadata(a.Topic); err != nil {
		return 0, err
	}
	return client.GetOffset(a.Topic, *a.Partition, at)
}

func watermarks(a *driver.Arguments) (any, error) {
	earliest, err := offset(a, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	latest, err := offset(a, sarama.OffsetNewest)
	return []int64{earliest, latest}, err
}

func offsetForTime(a *driver.Arguments) (any, error) { return offset(a, a.Ts) }

func createTopic(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	configs := map[string]*string{}
	for key, value := range a.Configs {
		configs[key] = &value
	}
	return nil, admin.CreateTopic(a.Topic, &sarama.TopicDetail{NumPartitions: a.Partitions, ReplicationFactor: 1, ConfigEntries: configs}, false)
}

func deleteTopic(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	return nil, admin.DeleteTopic(a.Topic)
}

func listTopics(*driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	topics, err := admin.ListTopics()
	names := []string{}
	for name := range topics {
		names = append(names, name)
	}
	return names, err
}

func describeTopic(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	described, err := admin.DescribeTopics([]string{a.Topic})
	if err != nil {
		return nil, err
	}
	if described[0].Err != sarama.ErrNoError {
		return nil, described[0].Err
	}
	return len(described[0].Partitions), nil
}

func describeConfigs(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: a.Topic})
	configs := map[string]string{}
	for _, entry := range entries {
		configs[entry.Name] = entry.Value
	}
	return configs, err
}

func alterConfig(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	return nil, admin.IncrementalAlterConfig(sarama.TopicResource, a.Topic,
		map[string]sarama.IncrementalAlterConfigsEntry{a.Key: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &a.Value}}, false)
}

func createPartitions(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	return nil, admin.CreatePartitions(a.Topic, a.Total, nil, false)
}

// DeleteRecords answers no offset in sarama, so the one that is left is asked for.
func deleteRecords(a *driver.Arguments) (any, error) {
	admin, err := admin()
	if err != nil {
		return nil, err
	}
	if err := admin.DeleteRecords(a.Topic, map[int32]int64{*a.Partition: a.Before}); err != nil {
		return nil, err
	}
	return offset(a, sarama.OffsetOldest)
}

func version(*driver.Arguments) (any, error) {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/IBM/sarama" {
			return "sarama " + module.Version, nil
		}
	}
	return nil, fmt.Errorf("the driver was built without sarama")
}

func main() {
	operations := map[string]driver.Operation{"version": version, "create_topic": createTopic, "delete_topic": deleteTopic, "list_topics": listTopics,
		"describe_topic": describeTopic, "describe_configs": describeConfigs, "alter_config": alterConfig, "create_partitions": createPartitions,
		"delete_records": deleteRecords, "produce": produce, "produce_bulk": produceBulk, "consume": consume, "consume_bulk": consumeBulk,
		"watermarks": watermarks, "offset_for_time": offsetForTime, "txn_open": txnOpen, "txn_begin": txnBegin, "txn_send": txnSend, "txn_end": txnEnd,
		"txn_close": txnClose, "txn_copy": txnCopy}
	maps.Copy(operations, driver.MemberOperations(join))
	driver.Serve(operations, code)
}
