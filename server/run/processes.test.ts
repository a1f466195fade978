/** Several processes of one role under one that keeps them (W7). */
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { connect } from '../../core/client/client.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { bundle, type Bundle } from '../../core/stores/testdata/bundled.ts'
import { initAuthority, issueInFolder } from '../edge/certificates.ts'
import { silentLog } from './log.ts'
import { openProcesses, settingsOfEach, type RunningProcesses } from './processes.ts'
import { readSettings, type ProcessRole } from './settings.ts'

let child: Bundle
let dir: string
beforeAll(async () => {
  child = await bundle('processes-child', "import { runChild } from '../../server/run/child.ts'; runChild()")
  dir = mkdtempSync(join(tmpdir(), 'hapax-processes-'))
})
afterAll(() => {
  child.remove()
  rmSync(dir, { recursive: true, force: true })
})
const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

const settingsOf = async (flags: Readonly<Record<string, string | boolean>>) => {
  const common = { cluster: 'c', zones: '1', shards: '4', plain: true, 'log.level': 'off' }
  return (await readSettings({ flags: { ...common, ...flags }, env: {} })).values
}
async function started(role: ProcessRole, flags: Readonly<Record<string, string | boolean>>): Promise<RunningProcesses> {
  const settings = await settingsOf({ 'map.file': join(dir, 'map.json'), ...flags })
  const running = await openProcesses({ role, settings, version: '1.2.3', log: silentLog, file: child.path })
  closing.push(() => running.close())
  return running
}
interface Status {
  readonly role: string
  readonly restarts: number
  readonly children: readonly {
    readonly name: string
    readonly state: string
    readonly pid: number
    readonly restarts: number
    readonly address: string
    readonly admin: string
  }[]
}
const read = async <T>(admin: string): Promise<T> => (await (await fetch(`http://${admin}/status`)).json()) as T
async function until(admin: string, holds: (status: Status) => boolean): Promise<Status> {
  for (;;) {
    const status = await read<Status>(admin)
    if (holds(status)) return status
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
const areReady = ({ children }: Status): boolean => children.every(({ state }) => state === 'ready')
const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text))

describe('proxies', { timeout: 60_000 }, () => {
  test('share a port; one that is killed is brought back while the others serve; all drain at the end', async () => {
    const storage = await started('storage', { name: 's', zone: '1', memory: true, processes: '1', 'map.file': join(dir, 'proxies.json') })
    const proxies = await started('proxy', {
      name: 'p',
      encryption: 'off',
      processes: '3',
      'map.file': join(dir, 'proxies.json'),
    })
    expect(proxies.processes.map(({ name }) => name)).toEqual(['p/1', 'p/2', 'p/3'])
    expect(new Set(proxies.processes.map(({ address }) => address))).toEqual(new Set([proxies.address]))
    expect(new Set(proxies.processes.map(({ pid }) => pid)).size).toBe(3)
    await until(storage.admin, areReady)
    const { children } = await until(proxies.admin, areReady)

    const kvs = await Promise.all(Array.from({ length: 6 }, () => connect(`hapax://${proxies.address}`, { connections: 1 })))
    await Promise.all(kvs.map((kv, index) => kv.create(`k${index}`, bytes('v'))))
    const counts = await Promise.all(children.map(async ({ admin }) => (await read<{ requests: number }>(admin)).requests))
    expect(counts.filter((count) => count > 0).length, 'each has its share of the connections').toBe(3)

    const [victim] = children
    process.kill(victim?.pid ?? 0, 'SIGKILL')
    for (let index = 0; index < 60; index++) await kvs[index % 6]?.set(`k${index}`, bytes('w'))
    const after = await until(proxies.admin, (status) => status.restarts === 1 && areReady(status))
    expect(after).toMatchObject({ role: 'supervisor', children: [{ name: 'p/1', restarts: 1, address: proxies.address }, {}, {}] })
    expect(after.children[0]?.pid).not.toBe(victim?.pid)
    expect((await kvs[0]?.get('k59'))?.entry?.value).toEqual(bytes('w'))

    // What is under way when all are told to end is answered; what comes too late finds nobody, and has done nothing.
    const underWay = Promise.allSettled(kvs.map((kv, index) => kv.set(`last${index}`, bytes('x'))))
    const closed = proxies.close()
    const outcomes = await underWay
    await Promise.all(kvs.map((kv) => kv.close()))
    await closed
    for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'UNAVAILABLE' })
    for (const { pid } of after.children) expect(isAlive(pid)).toBe(false)
  })

  test('share a certificate; storage servers have one each, by {n}', async () => {
    const certs = join(dir, 'certs')
    const now = epochMs(Date.now())
    await initAuthority(certs, 'c', now)
    for (const name of ['s-1', 's-2']) await issueInFolder(certs, { role: 'storage', name, hosts: ['127.0.0.1'] }, now)
    await issueInFolder(certs, { role: 'proxy', name: 'p', hosts: ['127.0.0.1'] }, now)
    await issueInFolder(certs, { role: 'client', name: 'pay', hosts: [] }, now)
    const pem = (name: string): string => join(certs, name)
    writeFileSync(join(dir, 'policy.toml'), '[[rule]]\nclients = ["pay"]\nnamespaces = ["*"]\n')
    const common = { plain: 'false', processes: '2', 'tls.ca': pem('ca.crt'), 'map.file': join(dir, 'tls.json') }
    const own = { 'tls.cert': pem('storage-s-{n}.crt'), 'tls.key': pem('storage-s-{n}.key'), 'servers-per-zone': '2' }
    await started('storage', { ...common, ...own, name: 's', zone: '1', memory: true })
    const policy = join(dir, 'policy.toml')
    const shared = { 'tls.cert': pem('proxy-p.crt'), 'tls.key': pem('proxy-p.key'), encryption: 'off', policy }
    const { admin, address } = await started('proxy', { ...common, ...shared, name: 'p' })
    const { children } = await until(admin, areReady)
    const tls = { ca: pem('ca.crt'), cert: pem('client-pay.crt'), key: pem('client-pay.key') }
    const kvs = await Promise.all(Array.from({ length: 4 }, () => connect(`hapax://${address}`, { tls, connections: 1 })))
    await Promise.all(kvs.map((kv, index) => kv.create(`t${index}`, bytes('v'))))
    const counts = await Promise.all(children.map(async ({ admin: window }) => (await read<{ requests: number }>(window)).requests))
    await Promise.all(kvs.map((kv) => kv.close()))
    expect(counts.filter((count) => count > 0)).toHaveLength(2)
  })

  test('share a Unix socket, too, which is for their user alone', async () => {
    const path = join(dir, 'proxies.sock')
    const mask = process.umask()
    try {
      await started('storage', { name: 's', zone: '1', memory: true, processes: '1', 'map.file': join(dir, 'unix.json') })
      const flags = { name: 'p', encryption: 'off', processes: '2', listen: `unix:${path}`, 'map.file': join(dir, 'unix.json') }
      const { admin, address } = await started('proxy', flags)
      expect(address).toBe(`unix:${path}`)
      expect(statSync(path).mode & 0o077).toBe(0)
      const { children } = await until(admin, areReady)
      process.kill(children[0]?.pid ?? 0, 'SIGKILL')
      await until(admin, (status) => status.restarts === 1 && areReady(status))
      const socket = createConnection({ path })
      await once(socket, 'connect')
      socket.destroy()
    } finally {
      process.umask(mask)
    }
  })
})

describe('storage servers', { timeout: 60_000 }, () => {
  test('are each one of its own: name, directory, port, and a place in the map', async () => {
    const running = await started('storage', { name: 's', zone: '1', data: join(dir, 'data'), processes: '2' })
    expect(running.processes.map(({ name }) => name)).toEqual(['s-1', 's-2'])
    expect(new Set(running.processes.map(({ address }) => address)).size).toBe(2)
    expect(readdirSync(join(dir, 'data')).sort()).toEqual(['1', '2'])
    const { children } = await until(running.admin, ({ children: all }) => all.some(({ state }) => state === 'ready'))
    const told = await Promise.all(children.map(async ({ admin }) => await read<{ name: string; zone: number }>(admin)))
    expect(told.map(({ name, zone }) => ({ name, zone }))).toEqual([
      { name: 's-1', zone: 1 },
      { name: 's-2', zone: 1 },
    ])
    await running.close()
    for (const { pid } of running.processes) expect(isAlive(pid)).toBe(false)
  })

  test('follow each other at the ports from the first one on, and have files of their own by {n}', async () => {
    const flags = {
      name: 's',
      zone: '1',
      data: '/d',
      listen: '127.0.0.1:5081',
      advertise: '10.0.0.1:5081',
      processes: '2',
      'map.file': 'm',
    }
    const tls = { plain: 'false', 'tls.ca': 'ca', 'tls.cert': 'storage-s-{n}.crt', 'tls.key': 'storage-s-{n}.key' }
    const each = settingsOfEach('storage', await settingsOf({ ...flags, ...tls }))
    expect(each).toMatchObject([
      { name: 's-1', data: '/d/1', listen: '127.0.0.1:5081', advertise: '10.0.0.1:5081', 'tls.cert': 'storage-s-1.crt', processes: 1 },
      { name: 's-2', data: '/d/2', listen: '127.0.0.1:5082', advertise: '10.0.0.1:5082', 'tls.key': 'storage-s-2.key', processes: 1 },
    ])
  })

  test('do not share a certificate, and need ports that there are', async () => {
    const mistake = async (flags: Readonly<Record<string, string | boolean>>): Promise<string> => {
      const settings = await settingsOf({ name: 's', zone: '1', data: '/d', processes: '2', 'map.file': 'm', ...flags })
      try {
        settingsOfEach('storage', settings)
        return 'none'
      } catch (error) {
        if (!isKvError(error, 'INVALID_ARGUMENT')) throw error
        return error.message
      }
    }
    expect(await mistake({ plain: 'false', 'tls.cert': 'one.crt' })).toContain('tls.cert is one file, and there are 2 storage servers')
    expect(await mistake({ listen: '127.0.0.1:65535' })).toContain('no port 65536')
  })
})

test('what the first start of a child refuses is told as it says it, and nothing is left running', async () => {
  const error: unknown = await started('proxy', { name: 'p', processes: '2', keys: join(dir, 'no-keys') }).catch((fault: unknown) => fault)
  if (!isKvError(error, 'INVALID_ARGUMENT')) throw error
  expect(error.message).toMatch(/p\/\d: the file that keys names cannot be read/)
})
