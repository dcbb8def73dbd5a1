// Driver for kafkajs: it produces and administers; it consumes only as a member of a group, see member.js.
'use strict'
const readline = require('readline')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')
const { makeOperations } = require('./member.js')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')

// kafkajs brings gzip and leaves the other codecs to whoever uses it; none of these is ever asked to decompress here.
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: encoder => lz4.compressFrame(encoder.buffer) })
const zstd = new Promise(resolve => ZstdCodec.run(binding => resolve(new binding.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: async encoder => Buffer.from((await zstd).compress(encoder.buffer)) })
const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

const kafka = new Kafka({ clientId: 'ringlog-suite', brokers: [process.env.BOOTSTRAP], logLevel: logLevel.ERROR, retry: { retries: 2 },
  logCreator: () => entry => console.error(JSON.stringify(entry)) })
let madeAdmin
const producers = new Map()

const bytes = text => (text === null ? null : Buffer.from(text, 'base64'))

async function admin () {
  if (!madeAdmin) {
    madeAdmin = kafka.admin()
    await madeAdmin.connect()
  }
  return madeAdmin
}

async function producer (idempotent) {
  if (!producers.has(idempotent)) {
    const made = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : 5, allowAutoTopicCreation: true, retry: { retries: 2 } })
    await made.connect()
    producers.set(idempotent, made)
  }
  return producers.get(idempotent)
}

function message (record, partition) {
  const headers = {}
  for (const [name, value] of record.h) {
    const all = headers[name] === undefined ? [] : [].concat(headers[name])
    headers[name] = all.length ? all.concat([bytes(value)]) : bytes(value)
  }
  return { key: bytes(record.k), value: bytes(record.v), headers, ...(partition === null ? {} : { partition }), ...(record.ts === null ? {} : { timestamp: String(record.ts) }) }
}

async function send (topic, messages, { compression, idempotent, acks }) {
  const sent = await (await producer(idempotent)).send({ topic, messages, acks, compression: CompressionTypes[CODECS[compression]] })
  return sent && sent.length === 1 && sent[0].baseOffset !== undefined ? Number(sent[0].baseOffset) : null
}

const operations = {
  async version () { return `kafkajs ${require('kafkajs/package.json').version}` },
  async create_topic ({ topic, partitions, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const made = await (await admin()).createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }] })
    if (!made) throw Object.assign(new Error('the topic exists'), { code: 36 }) // kafkajs answers false for this one error
  },
  async delete_topic ({ topic }) { await (await admin()).deleteTopics({ topics: [topic] }) },
  async list_topics () { return (await admin()).listTopics() },
  async describe_topic ({ topic }) { return (await (await admin()).fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length },
  async describe_configs ({ topic }) {
    const answer = await (await admin()).describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
    return Object.fromEntries(answer.resources[0].configEntries.map(entry => [entry.configName, entry.configValue]))
  },
  async alter_config ({ topic, key, value }) {
    await (await admin()).alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: key, value }] }] })
  },
  async create_partitions ({ topic, total }) { await (await admin()).createPartitions({ topicPartitions: [{ topic, count: total }] }) },
  async delete_records ({ topic, partition, before }) {
    await operations.watermarks({ topic, partition }) // kafkajs deletes only where it has met the topic's leaders before
    await (await admin()).deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
    return (await operations.watermarks({ topic, partition }))[0]
  },
  async produce ({ topic, partition, records, each, ...how }) {
    const messages = records.map(record => message(record, partition))
    if (!each) {
      const first = await send(topic, messages, how)
      return messages.map((_, index) => (first === null ? null : first + index))
    }
    const offsets = []
    for (const one of messages) offsets.push(await send(topic, [one], how))
    return offsets
  },
  async produce_bulk ({ topic, partition, count, bytes: size, compression, idempotent }) {
    const batch = Math.max(1, Math.min(5000, Math.floor(900000 / size)))
    let first = null
    for (let at = 0; at < count; at += batch) {
      const messages = []
      for (let index = at; index < Math.min(count, at + batch); index++) {
        const unit = String(index).padStart(10, '0') + ' '
        messages.push({ key: null, value: Buffer.from(unit.repeat(Math.floor(size / unit.length) + 1).slice(0, size)), partition })
      }
      const offset = await send(topic, messages, { compression, idempotent, acks: -1 })
      if (first === null) first = offset
    }
    return first
  },
  async watermarks ({ topic, partition }) {
    const found = (await (await admin()).fetchTopicOffsets(topic)).find(one => one.partition === partition)
    return [Number(found.low), Number(found.high)]
  },
  // kafkajs answers the end of the log where no record is that young.
  async offset_for_time ({ topic, partition, ts }) {
    const found = (await (await admin()).fetchTopicOffsetsByTimestamp(topic, ts)).find(one => one.partition === partition)
    const [, end] = await operations.watermarks({ topic, partition })
    return Number(found.offset) === end ? -1 : Number(found.offset)
  }
}
Object.assign(operations, makeOperations(kafka, admin))

// kafkajs wraps what the broker said: in a list for administration, in a cause when it gave up retrying.
function codeOf (error) {
  for (let at = error, depth = 0; at && depth < 5; depth++) {
    if (Number.isInteger(at.code) && at.code > 0) return at.code
    at = (at.errors && at.errors[0]) || (at.partitions && at.partitions[0] && at.partitions[0].error) || at.originalError || at.cause
  }
  return null
}

async function main () {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { op, ...rest } = JSON.parse(line)
    let answer
    try {
      const result = await operations[op](rest)
      answer = { ok: result === undefined ? null : result }
    } catch (error) {
      console.error(error)
      answer = { error: codeOf(error), message: `${error.name}: ${error.message}` }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}

main()
