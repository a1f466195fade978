/** JunoDB's frames, byte for byte: those of a real one where they are at hand, and golden ones made from its description. */
import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { JunoCodec } from './juno-codec.ts'
import { Opcode, PayloadType, readJuno, Status, type JunoMessage } from './juno-message.ts'
import { readSource } from './juno-source.ts'
import { writeJuno } from './juno-writer.ts'
import { canonical } from './testdata/juno-canonical.ts'
import { WireError } from './wire-bytes.ts'

const decode = (bytes: Uint8Array): JunoMessage[] => {
  const messages: JunoMessage[] = []
  new JunoCodec().decoder().push(bytes, (message) => messages.push(message))
  return messages
}
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8')

interface Vector {
  readonly name: string
  readonly requestHex: string
  readonly responseHex: string
}
const path = new URL('../../../shared/vectors/junodb-client.json', import.meta.url)
const vectors = existsSync(path)
  ? readFileSync(path, 'utf8')
      .split('\n')
      .flatMap((line) => (line.trim().startsWith('{') ? [JSON.parse(line.trim().replace(/,$/, '')) as Vector] : []))
  : []
const framesIn = (hex: string): Buffer[] => {
  const bytes = Buffer.from(hex, 'hex')
  const frames: Buffer[] = []
  for (let at = 0; at < bytes.length; at += bytes.readUInt32BE(at + 4)) frames.push(bytes.subarray(at, at + bytes.readUInt32BE(at + 4)))
  return frames
}

describe.skipIf(vectors.length === 0)('frames between a real JunoDB and its clients (skipped where they are not at hand)', () => {
  const named = (name: string): Vector => vectors.find((one) => one.name === name) as Vector
  const request = (name: string): JunoMessage => decode(Buffer.from(named(name).requestHex, 'hex'))[0] as JunoMessage
  const answer = (name: string): JunoMessage => decode(Buffer.from(named(name).responseHex, 'hex'))[0] as JunoMessage

  test('there are 140 pairs', () => {
    expect(vectors.length).toBe(140)
  })

  /** Nothing of these can be sent on: another magic number, and a component that ends behind its frame. */
  const unreadable = ['raw/bad-magic', 'raw/bad-component-size']
  /** Made by hand, and not in the Go encoder's order: so are those that look at storage servers, and all of the Java client. */
  const isOther = (name: string): boolean =>
    /^(java|storage-special)\/|^raw\/(create-(ct|order-old|payload-first|unknown-tag|unknown-component|len1)|get-source-only-shard|bad-version|type-oneway) /.test(
      name,
    )

  test('every frame is written byte for byte as it was read, or as the Go client would have sent it', () => {
    let same = 0
    const others = new Set<string>()
    for (const { name, requestHex, responseHex } of vectors) {
      if (unreadable.includes(name)) continue
      const requests = framesIn(requestHex)
      for (const frame of [...requests, ...framesIn(responseHex)]) {
        const written = writeJuno(readJuno(frame, 0, frame.length)).toString('hex')
        expect(written, name).toBe(canonical(frame).toString('hex'))
        if (written === frame.toString('hex')) same++
        else others.add(`${name} ${requests.includes(frame) ? 'asked' : 'answered'}`)
      }
    }
    // A ping of 16 bytes, and its echo, have no meta; we always have.
    expect([...others].filter((name) => !isOther(name) && !name.startsWith('raw/nop-16'))).toEqual([])
    expect([...others].filter((name) => name.endsWith('answered'))).toEqual(['raw/nop-16 answered'])
    expect({ same, others: others.size }).toEqual({ same: 247, others: 41 })
  })

  test('fields are what the clients asked for', () => {
    expect(request('go/create-ttl')).toMatchObject({ opcode: Opcode.create, isRequest: true, meta: { ttlS: 300 } })
    expect(request('java/create')).toMatchObject({ opcode: Opcode.create, meta: { ttlS: 1_800 } })
    expect(request('java/create').meta.requestId).toEqual(answer('java/create').meta.requestId)
    expect(request('java/cas-ok').meta.version).toBeGreaterThan(0)
    expect(request('go/update-cond-ok').meta).toMatchObject({
      version: expect.any(Number),
      createdAtS: expect.any(Number),
      originator: expect.any(Uint8Array),
    })
    expect(Buffer.from(request('go/create-binary-key').key).toString('hex')).toMatch(/^0001fffe/)
    expect(request('go/get-corr').meta.correlationId?.length).toBeGreaterThan(0)
    expect(request('go/udfget-sc')).toMatchObject({ opcode: Opcode.udfGet })
    expect(text(request('go/udfget-sc').meta.udfName as Uint8Array)).toBe('sc')
    expect(request('go/create-empty-value').payload).toBeUndefined()
    expect(request('raw/create-len1').payload).toBeUndefined()
    expect(request('raw/create-snappy').payload?.[0]).toBe(3)
    expect(request('go/create-2k').payload?.length).toBe(2_001)
    expect(request('raw/create-exp').meta.expiresAtS).toBeGreaterThan(1_700_000_000)
    expect(readSource(request('raw/nop-java').meta.sourceInfo as Uint8Array)).toMatchObject({ name: 'JunoInternal', port: 0 })
    expect(readSource(request('raw/create-ipv6src').meta.sourceInfo as Uint8Array)?.address).toHaveLength(16)
    expect(request('raw/nop-16')).toMatchObject({ opcode: Opcode.nop, hasPayload: false })
    expect(request('raw/create-payload-first').payload).toEqual(request('raw/create-no-source').payload)
    expect(request('raw/create-unknown-tag')).toMatchObject({ meta: { requestId: expect.any(Uint8Array) } })
    expect(request('raw/create-unknown-component').key.length).toBeGreaterThan(0)
  })

  test('answers say what happened', () => {
    expect(
      [answer('go/create'), answer('go/create-existing'), answer('go/get-missing'), answer('go/update-cond-stale')].map(
        ({ status }) => status,
      ),
    ).toEqual([Status.ok, Status.dupKey, Status.noKey, Status.versionConflict])
    expect(answer('go/get')).toMatchObject({
      isRequest: false,
      opcode: Opcode.get,
      meta: { version: expect.any(Number), lastModifiedNs: expect.any(BigInt) },
    })
    expect(answer('go/get').payload?.length).toBeGreaterThan(1)
    expect(answer('go/create-key257').status).toBe(Status.badParam)
    expect(answer('raw/op-08').status).toBe(Status.notSupported)
  })

  test('components that make no sense are told, and the head is read all the same', () => {
    expect(request('raw/bad-component-size')).toMatchObject({ isBad: true, opcode: Opcode.get, opaque: expect.any(Number) })
  })

  test('another magic number ends the stream', () => {
    expect(() => decode(Buffer.from(named('raw/bad-magic').requestHex, 'hex'))).toThrow(WireError)
  })
})

describe('golden frames', () => {
  const lines = readFileSync(new URL('testdata/juno-frames.txt', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  const frames = lines.map((line) => {
    const [hex = '', json = '', why = ''] = line.split('  ')
    return [why, { bytes: Buffer.from(hex.slice(1).replaceAll(' ', ''), 'hex'), json, isCanonical: hex.startsWith('=') }] as const
  })
  const inHex = ['requestId', 'originator', 'sourceInfo', 'own']
  const plain = (message: JunoMessage): unknown => {
    const shown = (name: string, value: unknown): unknown => {
      if (typeof value === 'bigint') return `${value}`
      return value instanceof Uint8Array ? Buffer.from(value).toString(inHex.includes(name) ? 'hex' : 'latin1') : value
    }
    const all = (fields: object) => Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, shown(name, value)]))
    return all({ ...message, meta: all(message.meta) })
  }

  test.each(frames)('%s', (_why, { bytes, json, isCanonical }) => {
    const [message] = decode(bytes) as [JunoMessage]
    expect(plain(message)).toEqual(JSON.parse(json))
    if (isCanonical) expect(writeJuno(message).toString('hex')).toBe(bytes.toString('hex'))
    else if (message.isBad !== true) expect(writeJuno(message).toString('hex')).toBe(canonical(bytes).toString('hex'))
  })

  test('each opcode of clients, each field and each type of payload has one', () => {
    const messages = frames.flatMap(([, { bytes }]) => decode(bytes))
    const set = <T>(of: (message: JunoMessage) => readonly T[]): Set<T> => new Set(messages.flatMap(of))
    expect(set(({ opcode }) => [opcode])).toEqual(new Set([...Object.values(Opcode), 8]))
    expect(set(({ payload }) => (payload === undefined ? [] : [payload[0]]))).toEqual(new Set(Object.values(PayloadType)))
    const fields = 'ttlS version createdAtS expiresAtS requestId originator lastModifiedNs handlingMs correlationId sourceInfo udfName own'
    expect(set(({ meta }) => Object.keys(meta).filter((name) => meta[name as keyof typeof meta] !== undefined))).toEqual(
      new Set(fields.split(' ')),
    )
  })
})
