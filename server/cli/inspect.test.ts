/** `hapax inspect`: frames and stored records, from where they come, and what is said of bytes that are neither (W3). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { noCompletions, type KeyRecord } from '../../core/record/record.ts'
import { registerKey } from '../../core/record/register-key.ts'
import { ClusterCodec } from '../../core/wire/cluster-codec.ts'
import { newKeyLine, parseKeyRing, Sealer } from '../edge/sealer.ts'
import * as layout from '../edge/storage-layout.ts'
import { runCommand } from './program.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'hapax-inspect-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

async function inspect(args: readonly string[], input: Uint8Array = new Uint8Array(0)) {
  let out = ''
  let err = ''
  const io = {
    env: {},
    out: (text: string) => void (out += text),
    err: (text: string) => void (err += text),
    input: async () => input,
    ended: async () => undefined,
    fail: (error: unknown) => {
      throw error
    },
  }
  const code = await runCommand(['inspect', ...args], io, '1.2.3')
  return { code, out, err }
}
const foundIn = (out: string): readonly object[] => (JSON.parse(out) as { readonly found: readonly object[] }).found
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const frame = new ClusterCodec().encode({ type: 'ping', id: 5, clock: epochMs(1_767_225_600_000) })

describe('a frame', () => {
  test('as an argument is printed field by field, an instant also as a date', async () => {
    expect(await inspect([hex(frame)])).toEqual({
      code: 0,
      err: '',
      out: 'protocol: cluster\noffset: 0\nbytes: 24\nversion: 1\ntype: ping\nid: 5\nclock: 1767225600000 (2026-01-01T00:00:00.000Z)\n',
    })
  })

  test.each(['argument with spaces', 'file of bytes', 'file of hex', 'stdin of bytes', 'stdin of hex'])('comes by %s', async (way) => {
    const path = join(dir, 'frame')
    const spaced = hex(frame).replaceAll(/(..)/g, '$1 ')
    const content = way.endsWith('hex') ? Buffer.from(`${spaced}\n`) : frame
    if (way.startsWith('file')) writeFileSync(path, content)
    const args = way.startsWith('file') ? ['--file', path] : way.startsWith('stdin') ? ['-'] : [spaced]
    const { code, out } = await inspect([...args, '-o', 'json'], Uint8Array.from(content))
    expect(code).toBe(0)
    expect(foundIn(out)).toEqual([{ protocol: 'cluster', offset: 0, bytes: 24, version: 1, type: 'ping', id: 5, clock: 1_767_225_600_000 }])
  })
})

describe('a stored record', () => {
  const name = registerKey(Buffer.from('pay'), Buffer.from('orders/1'))
  const key = layout.entryKey(3, 1, name)
  const record = (value: Uint8Array | undefined): KeyRecord => ({
    value,
    version: 2,
    createdAt: epochMs(1_767_225_600_000),
    lastModifiedAt: epochMs(1_767_225_600_001),
    changedAt: epochMs(1_767_225_600_001),
    expiresAt: epochMs(0),
    originator: 'one',
    lastRequest: 'two',
    completions: noCompletions,
  })
  const ballot = { ms: 1_767_225_600_000, counter: 1, proposer: 2 }
  const bytesOf = (value: Uint8Array | undefined): Buffer => layout.encodeEntry(key, { ballot, record: record(value) })

  test('is checked with the key of the disk, and shows both', async () => {
    const { code, out } = await inspect([hex(bytesOf(Buffer.from('\0paid'))), '--key', hex(key), '-o', 'json'])
    expect(code).toBe(0)
    expect(foundIn(out)).toMatchObject([
      {
        what: 'entry',
        isChecked: true,
        shard: 3,
        generation: 1,
        key: { namespace: 'pay', key: 'orders/1' },
        ballot,
        record: { version: 2, value: { type: 'clear', bytes: 4, content: 'paid' }, completions: { entries: [], marks: [] } },
      },
    ])
  })

  test('that is sealed says so, and under which key version, and nothing of what it holds', async () => {
    const sealer = new Sealer(parseKeyRing(newKeyLine(7)))
    const sealed = sealer.seal(name, Buffer.from('\0canary'))
    const { out } = await inspect([hex(bytesOf(sealed)), '--key', hex(key), '-o', 'json'])
    expect(foundIn(out)).toMatchObject([{ record: { value: { type: 'encryptedByProxy', isSealed: true, keyVersion: 7 } } }])
    expect(out).not.toContain('canary')
    expect(out).not.toContain(hex(sealed.subarray(17)))
  })

  test('without its key is shown, and says that nobody checked it', async () => {
    const { code, out } = await inspect([hex(bytesOf(undefined)), '-o', 'json'])
    expect(code).toBe(0)
    const [found] = foundIn(out)
    expect(found).toMatchObject({ what: 'entry', isChecked: false, record: { version: 2 } })
    expect((found as { readonly record: object }).record).not.toHaveProperty('value')
  })

  test('of a shard or a server is its marks', async () => {
    const marks = { shard: 3, purged: ballot }
    const at = layout.shardKey(3)
    const bytes = layout.encodeMarks(at, marks)
    expect(foundIn((await inspect([hex(bytes), '--key', hex(at), '-o', 'json'])).out)).toEqual([
      { what: 'shard', shard: 3, isChecked: true, marks },
    ])
    expect(foundIn((await inspect([hex(bytes), '-o', 'json'])).out)).toEqual([{ what: 'marks', isChecked: false, marks }])
    const due = layout.dueKey(3, 1, { at: epochMs(1_767_225_600_000), key: name })
    expect(foundIn((await inspect(['', '--key', hex(due), '-o', 'json'])).out)).toMatchObject([
      { what: 'due', shard: 3, at: 1_767_225_600_000 },
    ])
  })

  test('of another key, or changed, is damaged', async () => {
    const other = layout.entryKey(4, 1, name)
    const { code, err } = await inspect([hex(bytesOf(Buffer.from('\0paid'))), '--key', hex(other)])
    expect(code).toBe(1)
    expect(err).toMatch(/^error HPX-1004: this was not written for this key.*\n {2}hint: /)
  })
})

describe('what makes no sense ends with 2, a code and a hint', () => {
  test.each<[string[], RegExp]>([
    [[], /give the bytes, or a file/],
    [['xyz'], /the argument is no hex: 'x' at digit 0/],
    [['505'], /has 3 digits, and a byte has two/],
    [['ffff'], /no frame, and nothing that a storage server stores/],
    [[hex(frame.subarray(0, 20))], /at byte 0: it has 20 of 24 bytes/],
    [[hex(frame), '--file', 'x'], /give the bytes, or a file/],
    [['--file', '/nowhere/x'], /\/nowhere\/x cannot be read/],
    [['-'], /there are no bytes/],
    [['00', '--key', '70'], /no key of the disk/],
    [['7b7b7b7b7b7b'], /marks of a storage server do, and are none/],
  ])('%j', async (args, said) => {
    const { code, out, err } = await inspect(args)
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(/^error HPX-2001: .*\n {2}hint: .+\n$/)
    expect(err).toMatch(said)
  })
})
