// Group members and transactions of kafkajs: the operations that driver.js offers beside its own.
'use strict'
const { PartitionAssigners } = require('kafkajs')

const HEARTBEAT_MS = 500
const AUTO_COMMIT_MS = 200
const METADATA_MAX_AGE_MS = 2000
const FETCH_WAIT_MS = 300

function makeOperations (kafka, admin) {
  let member = null
  const producers = new Map()

  const pairs = assignment => Object.entries(assignment).flatMap(([topic, partitions]) => partitions.map(partition => [topic, partition])).sort()

  function consumerOf (group, options) {
    return kafka.consumer({
      groupId: group, sessionTimeout: options.session_timeout_ms, heartbeatInterval: HEARTBEAT_MS, metadataMaxAge: METADATA_MAX_AGE_MS,
      maxWaitTimeInMs: FETCH_WAIT_MS, allowAutoTopicCreation: false, readUncommitted: options.isolation === 'read_uncommitted',
      partitionAssigners: [PartitionAssigners.roundRobin], retry: { retries: 10, initialRetryTime: 100 }
    })
  }

  const operations = {
    async join ({ group, topics, ...options }) {
      const consumer = consumerOf(group, options)
      member = { consumer, group, assigned: [], assignments: 0, revoked: [], records: [], errors: [], positions: new Map() }
      const mine = member
      consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
        mine.assigned = pairs(payload.memberAssignment)
        mine.assignments++
      })
      consumer.on(consumer.events.REBALANCING, () => {
        mine.revoked.push(...mine.assigned)
        mine.assigned = []
        mine.positions.clear()
      })
      consumer.on(consumer.events.CRASH, ({ payload }) => mine.errors.push([payload.error.code || null, String(payload.error)]))
      await consumer.connect()
      await consumer.subscribe({ topics, fromBeginning: options.reset === 'earliest' })
      await consumer.run({
        autoCommit: options.commits === 'auto',
        autoCommitInterval: AUTO_COMMIT_MS,
        eachMessage: async ({ topic, partition, message }) => {
          mine.records.push([topic, partition, Number(message.offset), message.value && message.value.toString('base64')])
          mine.positions.set(`${topic}/${partition}`, { topic, partition, offset: String(Number(message.offset) + 1) })
        }
      })
    },
    async state () {
      const { assigned, assignments, revoked, records, errors } = member
      Object.assign(member, { records: [], errors: [] })
      return { assigned, assignments, revoked, records, errors }
    },
    async commit ({ how, offsets }) {
      const named = offsets ? offsets.map(([topic, partition, offset]) => ({ topic, partition, offset: String(offset) })) : [...member.positions.values()]
      const mine = member
      const done = mine.consumer.commitOffsets(named)
      if (how === 'sync') await done
      else done.catch(error => mine.errors.push([error.code || null, `commit: ${error}`]))
    },
    async committed ({ topic, partition }) {
      const [found] = await (await admin()).fetchOffsets({ groupId: member.group, topics: [topic] })
      return Number(found.partitions.find(one => one.partition === partition).offset)
    },
    async pause ({ topic, partition }) { member.consumer.pause([{ topic, partitions: [partition] }]) },
    async resume ({ topic, partition }) { member.consumer.resume([{ topic, partitions: [partition] }]) },
    async seek ({ topic, partition, to }) {
      let offset = { earliest: '-2', latest: '-1' }[to] || String(to)
      if (to.ts) offset = (await (await admin()).fetchTopicOffsetsByTimestamp(topic, to.ts)).find(one => one.partition === partition).offset
      member.consumer.seek({ topic, partition, offset })
    },
    async leave () {
      const { consumer } = member
      member = null
      await consumer.disconnect()
    },
    async txn_open ({ producer, id, timeout_ms: transactionTimeout }) {
      const made = kafka.producer({ transactionalId: id, transactionTimeout, idempotent: true, maxInFlightRequests: 1, retry: { retries: 5, initialRetryTime: 100 } })
      await made.connect()
      producers.set(producer, { made, transaction: null })
    },
    async txn_begin ({ producer }) {
      const mine = producers.get(producer)
      mine.transaction = await mine.made.transaction()
    },
    async txn_send ({ producer, topic, partition, values }) {
      await producers.get(producer).transaction.send({ topic, messages: values.map(value => ({ value: Buffer.from(value, 'base64'), partition })) })
    },
    async txn_end ({ producer, commit }) {
      const { transaction } = producers.get(producer)
      await (commit ? transaction.commit() : transaction.abort())
    },
    async txn_close ({ producer }) {
      const { made } = producers.get(producer)
      producers.delete(producer)
      await made.disconnect()
    },
    async txn_copy ({ id, group, source, target, count, commit }) {
      await operations.join({ group, topics: [source], reset: 'earliest', commits: 'sync', isolation: 'read_committed', session_timeout_ms: 6000 })
      const read = []
      const deadline = Date.now() + 40000
      while (read.length < count && Date.now() < deadline) {
        read.push(...(await operations.state()).records)
        await new Promise(resolve => setTimeout(resolve, 50))
      }
      await operations.txn_open({ producer: 'copy', id, timeout_ms: 30000 })
      await operations.txn_begin({ producer: 'copy' })
      const { transaction } = producers.get('copy')
      for (const [, partition, , value] of read) {
        await transaction.send({ topic: target, messages: [{ partition, value: Buffer.concat([Buffer.from('copy of '), Buffer.from(value, 'base64')]) }] })
      }
      const partitions = [...member.positions.values()].map(({ partition, offset }) => ({ partition, offset }))
      await transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic: source, partitions }] })
      await operations.txn_end({ producer: 'copy', commit })
      await operations.txn_close({ producer: 'copy' })
      await operations.leave()
      return read.length
    }
  }
  return operations
}

module.exports = { makeOperations }
