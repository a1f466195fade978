/** Processes from settings: a cluster with certificates, keys and a policy, its windows, and files that change (W5, W11, W12, W13, W18). */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { connect } from '../../core/client/client.ts'
import { isKvError, type KvErrorCode } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { initAuthority, issueInFolder } from '../edge/certificates.ts'
import { newKeyLine } from '../edge/sealer.ts'
import { silentLog } from './log.ts'
import { openProcess, type RunningProcess } from './process.ts'
import { readSettings, type ProcessRole } from './settings.ts'

const now = epochMs(Date.now())
let dir: string
const running: RunningProcess[] = []
const failures: unknown[] = []
const at = (...path: string[]): string => join(dir, ...path)

async function started(role: ProcessRole, flags: Readonly<Record<string, string | boolean>>): Promise<RunningProcess> {
  const common = { cluster: 'shop', shards: '4', 'map.file': at('map.json'), 'tls.ca': at('certs', 'ca.crt') }
  const { values } = await readSettings({ flags: { ...common, ...flags }, env: {} })
  const one = await openProcess({
    role,
    settings: values,
    version: '1.2.3',
    log: silentLog,
    onFailure: (error) => void failures.push(error),
  })
  running.push(one)
  return one
}
const certificateOf = (role: string, name: string) => ({
  name,
  'tls.cert': at('certs', `${role}-${name}.crt`),
  'tls.key': at('certs', `${role}-${name}.key`),
})
const clientOf = (name: string): { readonly ca: string; readonly cert: string; readonly key: string } => ({
  ca: at('certs', 'ca.crt'),
  cert: at('certs', `client-${name}.crt`),
  key: at('certs', `client-${name}.key`),
})
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text))
const codeOf = (promise: Promise<unknown>): Promise<KvErrorCode | 'none'> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : Promise.reject(error)),
  )
const look = async (admin: string, path: string): Promise<{ readonly status: number; readonly text: string }> => {
  const response = await fetch(`http://${admin}${path}`)
  return { status: response.status, text: await response.text() }
}

let storage: RunningProcess
let proxy: RunningProcess
let kv: KV
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'hapax-process-'))
  await initAuthority(at('certs'), 'shop', now)
  for (const name of ['s1', 's2', 's3']) await issueInFolder(at('certs'), { role: 'storage', name, hosts: ['127.0.0.1'] }, now)
  await issueInFolder(at('certs'), { role: 'proxy', name: 'p1', hosts: ['127.0.0.1'] }, now)
  for (const name of ['payments', 'reports']) await issueInFolder(at('certs'), { role: 'client', name, hosts: [] }, now)
  writeFileSync(at('keys'), `${newKeyLine(1)}\n`, { mode: 0o600 })
  writeFileSync(at('policy.toml'), '[[rule]]\nclients = ["payments"]\nnamespaces = ["pay"]\n')
  const servers = await Promise.all(
    ['1', '2', '3'].map((zone) => started('storage', { ...certificateOf('storage', `s${zone}`), zone, data: at(`s${zone}`) })),
  )
  storage = servers[0] as RunningProcess
  proxy = await started('proxy', { ...certificateOf('proxy', 'p1'), policy: at('policy.toml'), keys: at('keys') })
  kv = await connect(`hapax://${proxy.address}/pay`, { tls: clientOf('payments') })
}, 30_000)
afterAll(async () => {
  await kv?.close()
  for (const one of running.toReversed()) await one.close()
  rmSync(dir, { recursive: true, force: true })
  expect(failures).toEqual([])
})

describe('a cluster with certificates', () => {
  test('serves who is named in the policy, and refuses everybody else', async () => {
    expect(await kv.create('a', bytes('one'))).toMatchObject({ ok: true })
    const elsewhere = await connect(`hapax://${proxy.address}/other`, { tls: clientOf('payments') })
    expect(await codeOf(elsewhere.get('a'))).toBe('FORBIDDEN')
    await elsewhere.close()
    const other = await connect(`hapax://${proxy.address}/pay`, { tls: clientOf('reports') })
    expect(await codeOf(other.get('a'))).toBe('FORBIDDEN')
    await other.close()
  })

  test('does not talk in the clear', async () => {
    expect(await codeOf(connect(`hapax://${proxy.address}/pay`, { connectTimeout: '300ms' }))).toBe('UNAVAILABLE')
  })

  test('has nothing readable on its disks (W13)', async () => {
    await kv.set('canary', bytes('canary-of-the-disk'))
    for (const server of ['s1', 's2', 's3'])
      for (const path of readdirSync(at(server), { recursive: true, encoding: 'utf8' }))
        if (statSync(at(server, path)).isFile()) expect(readFileSync(at(server, path)).includes('canary-of-the-disk'), path).toBe(false)
    expect(Buffer.from((await kv.get('canary')).entry?.value ?? []).toString()).toBe('canary-of-the-disk')
  })
})

describe('the window of a process', () => {
  test('says that it lives and is ready, and what each check found', async () => {
    expect(await look(proxy.admin, '/livez')).toEqual({ status: 200, text: 'ok    event-loop\n' })
    expect(await look(proxy.admin, '/readyz')).toEqual({
      status: 200,
      text: 'ok    event-loop\nok    keys\nok    map\nok    quorum\nok    draining\n',
    })
    expect(await look(storage.admin, '/readyz')).toEqual({ status: 200, text: 'ok    event-loop\nok    shards\nok    draining\n' })
  })

  test('tells Prometheus what it counts, without a name of a key or a client', async () => {
    await kv.set('canary-key', bytes('x'))
    const { text } = await look(proxy.admin, '/metrics')
    expect(text).toMatch(/^hapax_request_duration_seconds_count\{op="set",status="0"\} \d+$/m)
    expect(text).toMatch(/^hapax_request_duration_seconds_bucket\{op="set",status="0",le="\+Inf"\} \d+$/m)
    expect(text).toMatch(/^process_cpu_seconds_total /m)
    expect(text).not.toMatch(/canary|payments|127\.0\.0\.1/)
    expect((await look(storage.admin, '/metrics')).text).toMatch(/^hapax_shards_serving 4$/m)
  })

  test('says what it is', async () => {
    const { text } = await look(storage.admin, '/status')
    expect(JSON.parse(text)).toMatchObject({ role: 'storage', name: 's1', zone: 1, cluster: 'shop', shards: { owned: 4, serving: 4 } })
  })

  test('changes nothing, and knows no other place', async () => {
    expect((await fetch(`http://${proxy.admin}/livez`, { method: 'POST', body: 'x' })).status).toBe(405)
    expect((await look(proxy.admin, '/debug')).status).toBe(404)
  })
})

describe('a process that does not fit', () => {
  const proxySettings = () => ({ ...certificateOf('proxy', 'p1'), policy: at('policy.toml'), keys: at('keys') })
  const codeOfStart = (role: ProcessRole, flags: Readonly<Record<string, string | boolean>>) => codeOf(started(role, flags))

  test('does not start with keys that others may read', async () => {
    writeFileSync(at('open-keys'), `${newKeyLine(1)}\n`)
    chmodSync(at('open-keys'), 0o644)
    expect(await codeOfStart('proxy', { ...proxySettings(), keys: at('open-keys') })).toBe('INVALID_ARGUMENT')
  })
  test('does not start with half a policy', async () => {
    writeFileSync(at('half.toml'), '[[rule]]\nclients = ["payments"]\n')
    expect(await codeOfStart('proxy', { ...proxySettings(), policy: at('half.toml') })).toBe('INVALID_ARGUMENT')
  })
  test('does not start with another map', async () => {
    expect(await codeOfStart('proxy', { ...proxySettings(), shards: '5' })).toBe('INVALID_ARGUMENT')
  })
  test('does not open a window for others', async () => {
    expect(await codeOfStart('proxy', { ...proxySettings(), 'admin.listen': '0.0.0.0:0' })).toBe('INVALID_ARGUMENT')
  })
  test('does not start in the directory of another one', async () => {
    expect(await codeOfStart('storage', { ...certificateOf('storage', 's1'), zone: '1', data: at('s2') })).toBe('DIRECTORY_IN_USE')
  })
})
