/**
 * What a message between a proxy and a storage server costs as bytes: written and read, beside Node's own serializer.
 * Invariant: each message that is read is looked at; one that is not what was written counts as wrong.
 * Why a hundred at a time: one takes less than reading the clock. Why CPU time: it is the same with a neighbour on the core.
 */
import { deserialize, serialize } from 'node:v8'
import { hapax, interleaved, median, options, report, slice, table, versions } from './harness.mjs'

const settings = options()
const { ms, random } = settings
const together = 100

const { ClusterCodec } = await hapax('core/wire/cluster-codec.js')
const { noCompletions } = await hapax('core/record/record.js')

const now = 1_767_225_600_000
const asked = { id: 123_456, shard: 17, epoch: 2, key: '\u0007paymentp-0123456789abcdef' }
const answered = { ...asked, zone: 1, clock: now }
const ballot = { ms: now, counter: 2, proposer: 2 ** 47 + 1 }
const record = (bytes, entries = 0) => ({
  value: Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256)),
  version: 3,
  createdAt: now,
  lastModifiedAt: now + 1,
  changedAt: now + 1,
  expiresAt: now + 60_000,
  originator: 'client-1\n1',
  lastRequest: 'client-1\n7',
  completions:
    entries === 0
      ? noCompletions
      : {
          entries: Array.from({ length: entries }, (_, sequence) => ({
            session: `client-${sequence}`,
            sequence,
            verb: 'update',
            outcome: 'applied',
            version: `3.${now}.client-1`,
            createdAt: now,
            expiresAt: now + 60_000,
            at: now,
          })),
          marks: [{ session: 'client-1', below: 6, at: now }],
        },
})
const messages = [
  ['PREPARE', { type: 'prepare', ...asked, ballot, isRaised: false, wants: 'whole' }],
  ['PROMISED, 200 B', { type: 'promised', ...answered, isWhole: true, entry: { ballot, record: record(200) } }],
  ['ACCEPT, 200 B', { type: 'accept', ...asked, ballot, record: record(200) }],
  ['ACCEPT, 200 B, 8 completions', { type: 'accept', ...asked, ballot, record: record(200, 8) }],
  ['ACCEPTED', { type: 'accepted', ...answered }],
  ['READ', { type: 'read', ...asked, wants: 'whole' }],
  ['its answer, 200 B', { type: 'shown', ...answered, isWhole: true, entry: { ballot, record: record(200) } }],
  ['its answer, 100 KiB', { type: 'shown', ...answered, isWhole: true, entry: { ballot, record: record(102_400) } }],
]

const codec = new ClusterCodec()
const stream = codec.decoder()
let last
const keep = (message) => (last = message)
const ways = [
  {
    kind: 'ours',
    write: (message) => codec.encode(message),
    read: (bytes) => {
      stream.push(bytes, keep)
      return last
    },
  },
  { kind: 'node:v8', write: serialize, read: deserialize },
]

/** Calls `each` so often, and asks of the last answer whether it is right. */
const contender = (name, kind, each, isRight) => ({
  name,
  kind,
  run: () =>
    slice({
      ms,
      inFlight: 1,
      op: async () => {
        let answer
        for (let left = together; left > 0; left -= 1) answer = each()
        return isRight(answer)
      },
    }),
})

/** All that a message says, for comparing. */
const said = (message) => JSON.stringify(message, (_, part) => (part instanceof Uint8Array ? Buffer.from(part).toString('base64') : part))

function contendersOf([what, message]) {
  return ways.flatMap(({ kind, write, read }) => {
    const bytes = write(message)
    if (said(read(bytes)) !== said(message)) throw new Error(`${kind} reads ${what} as something else`)
    const isSame = (found) => found.id === message.id && found.type === message.type
    return [
      {
        ...contender(
          `write ${what}`,
          kind,
          () => write(message),
          (written) => isSame(read(written)),
        ),
        bytes: bytes.length,
      },
      { ...contender(`read ${what}`, kind, () => read(bytes), isSame), bytes: bytes.length },
    ]
  })
}

const sections = []
const ratios = []
for (const message of messages) {
  const contenders = contendersOf(message)
  // Two ways have rows of one name.
  const named = contenders.map((one) => ({ ...one, name: `${one.name} / ${one.kind}` }))
  const rows = await interleaved(named, settings)
  for (const [index, row] of rows.entries()) {
    row.name = contenders[index].name
    row.bytes = contenders[index].bytes
    row.nsEach = (row.cpuUsPerOp * 1_000) / together
  }
  for (const verb of ['write', 'read']) {
    const [ours, other] = ways.map(({ kind }) => rows.find((row) => row.name.startsWith(verb) && row.kind === kind))
    ours.ratio = other.nsEach / ours.nsEach
    ratios.push(ours.ratio)
  }
  sections.push({
    title: message[0],
    rows,
    text: table(rows, ['nsEach', 'bytes', 'ratio', 'wrong'], { nsEach: ['CPU ns each', 0], bytes: ['bytes', 0] }),
  })
}

const cost = (title, verb) =>
  sections.find((one) => one.title === title).rows.find(({ name, kind }) => name.startsWith(verb) && kind === 'ours').nsEach
const usOf = (pairs) => pairs.reduce((sum, [title, verb, times]) => sum + times * cost(title, verb), 0) / 1_000
const aRead = usOf([
  ['READ', 'write', 3],
  ['its answer, 200 B', 'read', 3],
])
const aWrite = usOf([
  ['PREPARE', 'write', 3],
  ['PROMISED, 200 B', 'read', 3],
  ['ACCEPT, 200 B', 'write', 3],
  ['ACCEPTED', 'read', 3],
])
report('wire', {
  settings,
  versionsUsed: versions([]),
  sections,
  demands: [],
  notes: [
    `the bytes of a read of three replicas take a proxy ${aRead.toFixed(1)} us`,
    `those of a write take it ${aWrite.toFixed(1)} us; writes that wait for one key share them`,
    `ratio: how many times as long node:v8 takes; the median is ${median(ratios).toFixed(1)}`,
  ],
})
