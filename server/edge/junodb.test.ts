/** What JunoDB's clients see: the frames that a real JunoDB answered, asked again of a cluster of ours, and the cases of its functional tests. */
import { existsSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { connect } from '../../core/client/client.ts'
import { Pool } from '../../core/net/pool.ts'
import { JunoCodec } from '../../core/wire/juno-codec.ts'
import { readJuno, Status, type JunoMessage } from '../../core/wire/juno-message.ts'
import { startCluster, type TestCluster } from './testdata/cluster.ts'

interface Vector {
  readonly name: string
  readonly what: string
  readonly requestHex: string
  readonly responseHex: string
}
const path = new URL('../../../shared/vectors/junodb-client.json', import.meta.url)
const vectors = existsSync(path)
  ? readFileSync(path, 'utf8')
      .split('\n')
      .flatMap((line) => (line.trim().startsWith('{') ? [JSON.parse(line.trim().replace(/,$/, '')) as Vector] : []))
  : []
const frameOf = (hex: string): JunoMessage => {
  const bytes = Buffer.from(hex, 'hex')
  return readJuno(bytes, 0, bytes.readUInt32BE(4))
}

/** Sends frames as they were caught, whatever is wrong with them. */
class CaughtCodec extends JunoCodec {
  readonly caught = new Map<JunoMessage, Buffer>()
  override encode(message: JunoMessage, number: number): Buffer {
    const frame = this.caught.get(message)
    if (frame === undefined) return super.encode(message, number)
    const sent = Buffer.from(frame)
    sent.writeUInt32BE(number, 8)
    return sent
  }
}
const codec = new CaughtCodec()

let cluster: TestCluster
let pool: Pool<JunoMessage, JunoMessage>
beforeAll(async () => {
  cluster = await startCluster({ zones: 3, policy: { preset: 'juno', namespaces: [], rules: [{ clients: ['*'], namespaces: ['*'] }] } })
  // A proxy answers once it knows the clocks of a quorum; our client waits for that by itself.
  const ours = await connect(cluster.url)
  await ours.get('anything')
  await ours.close()
  const address = cluster.proxies[0]?.address
  if (address === undefined) throw new Error('there is no proxy')
  pool = new Pool({ addresses: [address], size: 1, security: 'plain', codec, random: seededRandom(1) })
  await pool.ready({ timeoutMs: 5_000 })
})
afterAll(async () => {
  await pool.close(0)
  await cluster.close()
})
const ask = (message: JunoMessage): Promise<JunoMessage> => pool.request(message, { timeoutMs: 5_000 })

/** Where we answer otherwise, and why. */
const others: Readonly<Record<string, string>> = {
  'go/destroy-corr': 'the end of the ended life is told always, and there only by some replicas',
  'raw/type-response': 'a message that is no request is a bad one (1), and no internal error (255)',
}
/** Of keys that were made in another recording. */
const strays = ['enc/set-existing']

describe.skipIf(vectors.length === 0)('what a real JunoDB answered (skipped where its frames are not at hand)', () => {
  const asked = vectors.filter(
    ({ name, responseHex }) =>
      /^(go|java|enc|raw)\//.test(name) &&
      responseHex !== '' &&
      !/bytes$|bad-magic|^raw\/repl|get-repl/.test(name) &&
      !strays.includes(name),
  )
  /** The state of a key as we told it last: what a client would send as a context. */
  const told = new Map<string, JunoMessage['meta']>()

  test.each(asked.map((one) => [one.name, one] as const))('%s', async (name, { requestHex, responseHex }) => {
    const expected = frameOf(responseHex)
    let request = frameOf(requestHex)
    const key = Buffer.from(request.key).toString('hex')
    if (name === 'go/update-cond-ok' || name === 'java/cas-ok') {
      const { version, createdAtS, originator } = told.get(key) as JunoMessage['meta']
      const { meta } = request
      request = { ...request, meta: { ...meta, version, ...(meta.createdAtS === undefined ? {} : { createdAtS, originator }) } }
    } else codec.caught.set(request, Buffer.from(requestHex, 'hex'))
    const answer = await ask(request)
    if (answer.status === Status.ok) told.set(key, answer.meta)
    const plain = (one: JunoMessage) => ({
      status: one.status,
      opcode: one.opcode,
      version: one.meta.version,
      payload: one.payload === undefined ? '' : Buffer.from(one.payload).toString('hex'),
      requestId: one.meta.requestId === undefined ? '' : Buffer.from(one.meta.requestId).toString('hex'),
      namespace: Buffer.from(one.namespace).toString('hex'),
      key: Buffer.from(one.key).toString('hex'),
      fields: Object.entries(one.meta)
        .flatMap(([field, value]) => (value === undefined ? [] : [field]))
        .toSorted(),
    })
    if (others[name] === undefined) expect(plain(answer)).toEqual(plain(expected))
    else expect(plain(answer)).not.toEqual(plain(expected))
  })
})
