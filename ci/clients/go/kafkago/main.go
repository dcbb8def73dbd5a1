// Command kafkago is the suite's driver for segmentio/kafka-go.
package main

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"ringlog.ci/clients/driver"
)

var codecs = map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

type writerKey struct {
	topic       string
	partition   int32
	compression string
	acks        int16
}

// writer keeps one kafka.Writer and what its completions said of the messages on their way.
type writer struct {
	*kafka.Writer
	completed chan completion
}

type completion struct {
	messages []kafka.Message
	err      error
}

var (
	client  = &kafka.Client{Addr: kafka.TCP(driver.Bootstrap), Timeout: 50 * time.Second}
	writers = map[writerKey]*writer{}
)

func limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 50*time.Second)
}

// code also looks into the errors of single messages, and at the two of its own errors that stand for the broker's.
func code(err error) (int, bool) {
	var several kafka.WriteErrors
	if errors.As(err, &several) {
		for _, one := range several {
			if one != nil {
				return code(one)
			}
		}
	}
	var found kafka.Error
	if errors.As(err, &found) {
		return int(found), true
	}
	return 0, false
}

func writerFor(a *driver.Arguments) *writer {
	key := writerKey{a.Topic, -1, a.Compression, a.Acks}
	if a.Partition != nil {
		key.partition = *a.Partition
	}
	if found, ok := writers[key]; ok {
		return found
	}
	made := &writer{completed: make(chan completion, 100_000)}
	made.Writer = &kafka.Writer{Addr: kafka.TCP(driver.Bootstrap), Topic: a.Topic, RequiredAcks: kafka.RequiredAcks(a.Acks), Compression: codecs[a.Compression],
		BatchTimeout: 20 * time.Millisecond, BatchSize: 10_000, BatchBytes: driver.BatchBytesMax, MaxAttempts: 3, AllowAutoTopicCreation: true,
		Completion: func(messages []kafka.Message, err error) {
			made.completed <- completion{slices.Clone(messages), err}
		}}
	if a.Partition != nil {
		made.Balancer = kafka.BalancerFunc(func(kafka.Message, ...int) int { return int(*a.Partition) })
	}
	writers[key] = made
	return made
}

func send(a *driver.Arguments, messages []kafka.Message) ([]int64, error) {
	ctx, cancel := limit()
	defer cancel()
	writer, offsets := writerFor(a), make([]int64, len(messages))
	for i := range messages {
		messages[i].WriterData = i
	}
	step := len(messages)
	if a.Each {
		step = 1
	}
	for group := range slices.Chunk(messages, max(step, 1)) {
		if err := writer.WriteMessages(ctx, group...); err != nil {
			writer.drain(0)
			return nil, err
		}
		for _, sent := range writer.drain(len(group)) {
			offsets[sent.WriterData.(int)] = sent.Offset
		}
	}
	if a.Acks == 0 {
		for i := range offsets {
			offsets[i] = -1
		}
	}
	return offsets, nil
}

// drain takes the completions of count messages; of 0, whatever is there.
func (w *writer) drain(count int) []kafka.Message {
	var sent []kafka.Message
	for len(sent) < count || (count == 0 && len(w.completed) > 0) {
		sent = append(sent, (<-w.completed).messages...)
	}
	return sent
}

func produce(a *driver.Arguments) (any, error) {
	messages := make([]kafka.Message, len(a.Records))
	for i, r := range a.Records {
		messages[i] = kafka.Message{Key: r.Key, Value: r.Value}
		if r.Time != nil {
			messages[i].Time = time.UnixMilli(*r.Time)
		}
		for _, header := range r.Headers {
			messages[i].Headers = append(messages[i].Headers, kafka.Header{Key: header.Name, Value: header.Value})
		}
	}
	offsets, err := send(a, messages)
	return driver.Offsets(offsets), err
}

func produceBulk(a *driver.Arguments) (any, error) {
	messages := make([]kafka.Message, a.Count)
	for i := range messages {
		messages[i].Value = driver.BulkValue(i, a.Bytes)
	}
	a.Acks = -1
	offsets, err := send(a, messages)
	if err != nil {
		return nil, err
	}
	return offsets[0], nil
}

func read(a *driver.Arguments, take func(kafka.Message)) error {
	isolation := kafka.ReadUncommitted
	if a.Isolation == "read_committed" {
		isolation = kafka.ReadCommitted
	}
	reader := kafka.NewReader(kafka.ReaderConfig{IsolationLevel: isolation, Brokers: []string{driver.Bootstrap}, Topic: a.Topic, Partition: int(*a.Partition), MinBytes: 1,
		MaxBytes: driver.FetchBytesMax, MaxWait: driver.FetchWait, OffsetOutOfRangeError: true, ReadLagInterval: -1})
	// Close waits until the broker answers the fetch under way; the records are there long before.
	defer func() { go reader.Close() }()
	if err := reader.SetOffset(a.Start(kafka.FirstOffset, kafka.LastOffset)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.Timeout())
	defer cancel()
	for range a.Count {
		message, err := reader.ReadMessage(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		take(message)
	}
	return nil
}

func consume(a *driver.Arguments) (any, error) {
	records := []driver.Record{}
	err := read(a, func(m kafka.Message) {
		at := m.Time.UnixMilli()
		record := driver.Record{Offset: m.Offset, Key: m.Key, Value: m.Value, Time: &at, Headers: []driver.Header{}}
		for _, header := range m.Headers {
			record.Headers = append(record.Headers, driver.Header{Name: header.Key, Value: header.Value})
		}
		records = append(records, record)
	})
	return records, err
}

func consumeBulk(a *driver.Arguments) (any, error) {
	reading := driver.NewBulkReading()
	err := read(a, func(m kafka.Message) { reading.Take(m.Offset, m.Value) })
	return reading.Answer(), err
}

func listOffsets(a *driver.Arguments, asked kafka.OffsetRequest) (kafka.PartitionOffsets, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{a.Topic: {asked}}})
	if err != nil {
		return kafka.PartitionOffsets{}, err
	}
	return answer.Topics[a.Topic][0], answer.Topics[a.Topic][0].Error
}

func watermarks(a *driver.Arguments) (any, error) {
	first, err := listOffsets(a, kafka.FirstOffsetOf(int(*a.Partition)))
	if err != nil {
		return nil, err
	}
	last, err := listOffsets(a, kafka.LastOffsetOf(int(*a.Partition)))
	return []int64{first.FirstOffset, last.LastOffset}, err
}

func offsetForTime(a *driver.Arguments) (any, error) {
	found, err := listOffsets(a, kafka.TimeOffsetOf(int(*a.Partition), time.UnixMilli(a.Ts)))
	for offset := range found.Offsets {
		return offset, err
	}
	return -1, err
}

func createTopic(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	topic := kafka.TopicConfig{Topic: a.Topic, NumPartitions: int(a.Partitions), ReplicationFactor: 1}
	for key, value := range a.Configs {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	answer, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err != nil {
		return nil, err
	}
	return nil, answer.Errors[a.Topic]
}

func deleteTopic(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{a.Topic}})
	if err != nil {
		return nil, err
	}
	return nil, answer.Errors[a.Topic]
}

func listTopics(*driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, topic := range answer.Topics {
		names = append(names, topic.Name)
	}
	return names, nil
}

func describeTopic(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{a.Topic}})
	if err != nil {
		return nil, err
	}
	return len(answer.Topics[0].Partitions), answer.Topics[0].Error
}

func describeConfigs(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: a.Topic}}})
	if err != nil {
		return nil, err
	}
	configs := map[string]string{}
	for _, entry := range answer.Resources[0].ConfigEntries {
		configs[entry.ConfigName] = entry.ConfigValue
	}
	return configs, answer.Resources[0].Error
}

func alterConfig(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: a.Topic,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: a.Key, Value: a.Value, ConfigOperation: kafka.ConfigOperationSet}}}}})
	if err != nil {
		return nil, err
	}
	return nil, answer.Resources[0].Error
}

func createPartitions(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	answer, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: a.Topic, Count: a.Total}}})
	if err != nil {
		return nil, err
	}
	return nil, answer.Errors[a.Topic]
}

func version(*driver.Arguments) (any, error) {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/segmentio/kafka-go" {
			return "kafka-go " + module.Version, nil
		}
	}
	return nil, errors.New("the driver was built without kafka-go")
}

func main() {
	operations := map[string]driver.Operation{"version": version, "create_topic": createTopic, "delete_topic": deleteTopic, "list_topics": listTopics,
		"describe_topic": describeTopic, "describe_configs": describeConfigs, "alter_config": alterConfig, "create_partitions": createPartitions,
		"produce": produce, "produce_bulk": produceBulk, "consume": consume, "consume_bulk": consumeBulk,
		"watermarks": watermarks, "offset_for_time": offsetForTime}
	maps.Copy(operations, driver.MemberOperations(join))
	driver.Serve(operations, code)
}
