// Command franz is the suite's driver for franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"ringlog.ci/clients/driver"
)

var codecs = map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}

type producerKey struct {
	compression string
	idempotent  bool
	acks        int16
	manual      bool
}

var (
	plain     = must(kgo.NewClient(kgo.SeedBrokers(driver.Bootstrap)))
	admin     = kadm.NewClient(plain)
	producers = map[producerKey]*kgo.Client{}
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 50*time.Second)
}

func code(err error) (int, bool) {
	if found := (*kerr.Error)(nil); errors.As(err, &found) {
		return int(found.Code), true
	}
	return 0, false
}

func producer(key producerKey) (*kgo.Client, error) {
	if found, ok := producers[key]; ok {
		return found, nil
	}
	options := []kgo.Opt{kgo.SeedBrokers(driver.Bootstrap), kgo.ProducerBatchCompression(codecs[key.compression]), kgo.AllowAutoTopicCreation(),
		kgo.ProducerLinger(20 * time.Millisecond), kgo.ProducerBatchMaxBytes(driver.BatchBytesMax)}
	switch key.acks {
	case 0:
		options = append(options, kgo.RequiredAcks(kgo.NoAck()))
	case 1:
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()))
	}
	if !key.idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	if key.manual {
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	made, err := kgo.NewClient(options...)
	if err == nil {
		producers[key] = made
	}
	return made, err
}

func send(a *driver.Arguments, records []*kgo.Record, each bool) (any, error) {
	client, err := producer(producerKey{a.Compression, a.Idempotent, a.Acks, a.Partition != nil})
	if err != nil {
		return nil, err
	}
	ctx, cancel := limit()
	defer cancel()
	errs := make([]error, len(records))
	for i, record := range records {
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { errs[i] = err })
		if each {
			if err := client.Flush(ctx); err != nil {
				return nil, err
			}
		}
	}
	if err := client.Flush(ctx); err != nil {
		return nil, err
	}
	offsets := make([]int64, len(records))
	for i, record := range records {
		if errs[i] != nil {
			return nil, errs[i]
		}
		offsets[i] = record.Offset
		if a.Acks == 0 {
			offsets[i] = -1
		}
	}
	return driver.Offsets(offsets), nil
}

func produce(a *driver.Arguments) (any, error) {
	records := make([]*kgo.Record, len(a.Records))
	for i, r := range a.Records {
		records[i] = &kgo.Record{Topic: a.Topic, Key: r.Key, Value: r.Value}
		if a.Partition != nil {
			records[i].Partition = *a.Partition
		}
		if r.Time != nil {
			records[i].Timestamp = time.UnixMilli(*r.Time)
		}
		for _, header := range r.Headers {
			records[i].Headers = append(records[i].Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
	}
	return send(a, records, a.Each)
}

func produceBulk(a *driver.Arguments) (any, error) {
	records := make([]*kgo.Record, a.Count)
	for i := range records {
		records[i] = &kgo.Record{Topic: a.Topic, Partition: *a.Partition, Value: driver.BulkValue(i, a.Bytes)}
	}
	a.Acks = -1
	offsets, err := send(a, records, false)
	if err != nil {
		return nil, err
	}
	return offsets.([]any)[0], nil
}

func read(a *driver.Arguments, take func(*kgo.Record)) error {
	at := kgo.NewOffset()
	switch start := a.Start(-2, -1); start {
	case -2:
		at = at.AtStart()
	case -1:
		at = at.AtEnd()
	default:
		at = at.At(start)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(driver.Bootstrap), kgo.FetchMaxWait(driver.FetchWait), isolation(a.Isolation), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{a.Topic: {*a.Partition: at}}))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), a.Timeout())
	defer cancel()
	for left := a.Count; left > 0 && ctx.Err() == nil; {
		fetches := client.PollRecords(ctx, left)
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) {
				return failed.Err
			}
		}
		fetches.EachRecord(func(record *kgo.Record) { left--; take(record) })
	}
	return nil
}

func consume(a *driver.Arguments) (any, error) {
	records := []driver.Record{}
	err := read(a, func(r *kgo.Record) {
		at, kind := r.Timestamp.UnixMilli(), "create"
		if r.Attrs.TimestampType() == 1 {
			kind = "append"
		}
		record := driver.Record{Offset: r.Offset, Key: r.Key, Value: r.Value, Time: &at, TimeType: &kind, Headers: []driver.Header{}}
		for _, header := range r.Headers {
			record.Headers = append(record.Headers, driver.Header{Name: header.Key, Value: header.Value})
		}
		records = append(records, record)
	})
	return records, err
}

func consumeBulk(a *driver.Arguments) (any, error) {
	reading := driver.NewBulkReading()
	err := read(a, func(r *kgo.Record) { reading.Take(r.Offset, r.Value) })
	return reading.Answer(), err
}

func offset(a *driver.Arguments, listed kadm.ListedOffsets, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	found, ok := listed.Lookup(a.Topic, *a.Partition)
	if !ok {
		return 0, fmt.Errorf("no offset for %s-%d", a.Topic, *a.Partition)
	}
	return found.Offset, found.Err
}

func watermarks(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	listed, err := admin.ListStartOffsets(ctx, a.Topic)
	earliest, err := offset(a, listed, err)
	if err != nil {
		return nil, err
	}
	listed, err = admin.ListEndOffsets(ctx, a.Topic)
	latest, err := offset(a, listed, err)
	return []int64{earliest, latest}, err
}

// kadm answers the end of the log where no record is that young; with its time −1 it says that none was found.
func offsetForTime(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	listed, err := admin.ListOffsetsAfterMilli(ctx, a.Ts, a.Topic)
	at, err := offset(a, listed, err)
	if found, ok := listed.Lookup(a.Topic, *a.Partition); ok && found.Timestamp < 0 {
		return -1, err
	}
	return at, err
}

func createTopic(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	configs := map[string]*string{}
	for key, value := range a.Configs {
		configs[key] = &value
	}
	_, err := admin.CreateTopic(ctx, a.Partitions, 1, configs, a.Topic)
	return nil, err
}

func deleteTopic(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	_, err := admin.DeleteTopic(ctx, a.Topic)
	return nil, err
}

func listTopics(*driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	topics, err := admin.ListTopics(ctx)
	return topics.Names(), err
}

func describeTopic(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	topics, err := admin.ListTopics(ctx, a.Topic)
	if err != nil {
		return nil, err
	}
	return len(topics[a.Topic].Partitions), topics[a.Topic].Err
}

func describeConfigs(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	described, err := admin.DescribeTopicConfigs(ctx, a.Topic)
	if err != nil {
		return nil, err
	}
	resource, err := described.On(a.Topic, nil)
	if err != nil {
		return nil, err
	}
	configs := map[string]*string{}
	for _, config := range resource.Configs {
		configs[config.Key] = config.Value
	}
	return configs, resource.Err
}

func alterConfig(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: a.Key, Value: &a.Value}}, a.Topic)
	if err != nil {
		return nil, err
	}
	one, err := altered.On(a.Topic, nil)
	if err != nil {
		return nil, err
	}
	return nil, one.Err
}

func createPartitions(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	made, err := admin.UpdatePartitions(ctx, int(a.Total), a.Topic)
	if err != nil {
		return nil, err
	}
	return nil, made.Error()
}

func deleteRecords(a *driver.Arguments) (any, error) {
	ctx, cancel := limit()
	defer cancel()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: a.Topic, Partition: *a.Partition, At: a.Before, LeaderEpoch: -1})
	deleted, err := admin.DeleteRecords(ctx, offsets)
	if err != nil {
		return nil, err
	}
	one, ok := deleted.Lookup(a.Topic, *a.Partition)
	if !ok {
		return nil, errors.New("no answer for the partition")
	}
	return one.LowWatermark, one.Err
}

func version(*driver.Arguments) (any, error) {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/twmb/franz-go" {
			return "franz-go " + module.Version, nil
		}
	}
	return nil, errors.New("the driver was built without franz-go")
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
