import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdir, rename } from 'node:fs/promises'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { dial } from '../../core/net/dial.ts'
import { identityOf, type Identity } from '../../core/net/identity.ts'
import { Listener } from '../../core/net/listener.ts'
import { until } from '../../core/net/testdata/until.ts'
import { systemTicker } from '../../core/net/ticker.ts'
import { Credentials } from '../../core/net/tls.ts'
import {
  authorityLifeMs,
  certificateLifeMs,
  initAuthority,
  issueCertificate,
  issueInFolder,
  makeAuthority,
  type Issue,
} from './certificates.ts'

const now = epochMs(Date.UTC(2026, 0, 1))
const today = epochMs(Date.now())
const proxy: Issue = { cluster: 'pay', role: 'proxy', name: 'p1', hosts: ['localhost', '127.0.0.1', '::1', 'p1.example.org'] }
const shop: Issue = { cluster: 'pay', role: 'client', name: 'shop', hosts: [] }
const serverAuth = '1.3.6.1.5.5.7.3.1'
const clientAuth = '1.3.6.1.5.5.7.3.2'

let parent: string
let folder: string
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'hapax-cert-'))
  folder = join(parent, 'certs')
})
afterEach(() => rmSync(parent, { recursive: true, force: true }))

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

describe('an authority', () => {
  test('is EC P-256, lasts ten years, and may sign certificates but no authorities', async () => {
    const { cert, key } = await makeAuthority('pay', now)
    const parsed = new X509Certificate(cert)
    expect(parsed.ca).toBe(true)
    expect(parsed.checkPrivateKey(createPrivateKey(key))).toBe(true)
    expect(parsed.publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1')
    expect(Date.parse(parsed.validTo)).toBe(now + authorityLifeMs)
    expect(Date.parse(parsed.validFrom)).toBeLessThan(now)
    expect(parsed.verify(parsed.publicKey)).toBe(true)
  })

  test('has no name that no identity could have', async () => {
    await expect(makeAuthority('Pay/1', now)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
})

describe('a certificate', () => {
  test('of a server names its role and its hosts, and serves both ends', async () => {
    const authority = await makeAuthority('pay', now)
    const { cert, key } = await issueCertificate(authority, proxy, now)
    const parsed = new X509Certificate(cert)
    expect(identityOf(parsed.subjectAltName)).toEqual({ cluster: 'pay', role: 'proxy', name: 'p1' })
    for (const host of ['localhost', 'p1.example.org']) expect(parsed.checkHost(host), host).toBe(host)
    for (const ip of ['127.0.0.1', '::1']) expect(parsed.checkIP(ip), ip).toBe(ip)
    expect(parsed.checkHost('example.org')).toBeUndefined()
    expect(parsed.keyUsage).toEqual([serverAuth, clientAuth])
    expect(parsed.ca).toBe(false)
    expect(parsed.checkPrivateKey(createPrivateKey(key))).toBe(true)
    expect(parsed.verify(new X509Certificate(authority.cert).publicKey)).toBe(true)
    expect(Date.parse(parsed.validTo)).toBe(now + certificateLifeMs)
  })

  test('of a client is no good for a server', async () => {
    const { cert } = await issueCertificate(await makeAuthority('pay', now), shop, now)
    const parsed = new X509Certificate(cert)
    expect(identityOf(parsed.subjectAltName)).toEqual({ cluster: 'pay', role: 'client', name: 'shop' })
    expect(parsed.keyUsage).toEqual([clientAuth])
    expect(parsed.subjectAltName).toBe('URI:spiffe://pay/client/shop')
  })

  test('lasts no longer than its authority, and an authority that has ended signs none', async () => {
    const authority = await makeAuthority('pay', now)
    const end = now + authorityLifeMs
    const { cert } = await issueCertificate(authority, shop, epochMs(end - 1_000))
    expect(Date.parse(new X509Certificate(cert).validTo)).toBe(end)
    await expect(issueCertificate(authority, shop, epochMs(end))).rejects.toThrow('the authority ended at 2035')
  })

  test.each<[string, Issue]>([
    ['a server without a host', { ...proxy, hosts: [] }],
    ['a client with a host', { ...shop, hosts: ['localhost'] }],
    ['a host with a port', { ...proxy, hosts: ['localhost:80'] }],
    ['a wildcard', { ...proxy, hosts: ['*.example.org'] }],
    ['two names in one', { ...proxy, hosts: ['a, DNS:b'] }],
    ['a name that leaves the folder', { ...shop, name: '../shop' }],
    ['a role that does not exist', { ...shop, role: 'root' as never }],
  ])('is not made for %s', async (_, issue) => {
    const authority = await makeAuthority('pay', now)
    await expect(issueCertificate(authority, issue, now)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })

  test('is not signed by one that is no authority', async () => {
    const authority = await makeAuthority('pay', now)
    const leaf = await issueCertificate(authority, shop, now)
    await expect(issueCertificate(leaf, shop, now)).rejects.toThrow('this certificate is no authority')
    await expect(issueCertificate({ ...leaf, cert: 'nothing' }, shop, now)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
})

describe('files', () => {
  test('have the right names and rights, whatever the mask of the process', async () => {
    const mask = process.umask(0)
    try {
      expect(await initAuthority(folder, 'pay', now)).toEqual([join(folder, 'ca.crt'), join(folder, 'ca.key')])
      const written = await issueInFolder(folder, { role: 'client', name: 'shop', hosts: [] }, now)
      expect(written).toEqual([join(folder, 'client-shop.crt'), join(folder, 'client-shop.key')])
    } finally {
      process.umask(mask)
    }
    expect(modeOf(folder)).toBe('700')
    for (const name of ['ca', 'client-shop']) {
      expect(modeOf(join(folder, `${name}.key`))).toBe('600')
      expect(modeOf(join(folder, `${name}.crt`))).toBe('644')
    }
  })

  test('are never overwritten, and half a pair is not left', async () => {
    await initAuthority(folder, 'pay', now)
    const before = readFileSync(join(folder, 'ca.key'), 'utf8')
    await expect(initAuthority(folder, 'pay', now)).rejects.toThrow('ca.key is there already')
    expect(readFileSync(join(folder, 'ca.key'), 'utf8')).toBe(before)

    writeFileSync(join(folder, 'client-shop.crt'), 'mine')
    await expect(issueInFolder(folder, { role: 'client', name: 'shop', hosts: [] }, now)).rejects.toThrow(
      'client-shop.crt is there already',
    )
    expect(readdirSync(folder).toSorted()).toEqual(['ca.crt', 'ca.key', 'client-shop.crt'])
    expect(readFileSync(join(folder, 'client-shop.crt'), 'utf8')).toBe('mine')
  })

  test('of an authority are needed to issue', async () => {
    await expect(issueInFolder(folder, { role: 'client', name: 'shop', hosts: [] }, now)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      hint: 'make one with hapax cert init',
    })
  })

  const open = (base: string): Promise<Credentials> =>
    Credentials.open({ ca: join(folder, 'ca.crt'), cert: join(folder, `${base}.crt`), key: join(folder, `${base}.key`) })
  /** Whom the client finds. Both stay open for more. */
  async function meet(server: Credentials, client: Credentials): Promise<Identity | undefined> {
    const listener = await Listener.open<string, string>({
      address: { host: '127.0.0.1', port: 0 },
      security: { credentials: server, roles: ['proxy'] },
      codec: { decoder: () => ({ heldBytes: 0, push: () => undefined }), encode: () => new Uint8Array(), numberOf: () => undefined },
      onRequest: () => undefined,
    })
    try {
      const { socket, identity } = await dial({
        address: listener.address,
        security: { credentials: client, roles: ['storage'] },
        deadline: systemTicker.now() + 10_000,
        ticker: systemTicker,
      })
      // Who is refused hears of it after he took himself to be connected.
      socket.resume()
      await until(() => listener.stats.peers === 1 || socket.destroyed)
      const isIn = !socket.destroyed
      socket.destroy()
      return isIn ? identity : undefined
    } finally {
      await listener.close(0)
    }
  }

  test('are all that two processes need to know each other', async () => {
    await initAuthority(folder, 'pay', today)
    await issueInFolder(folder, { role: 'storage', name: 's1', hosts: ['127.0.0.1'] }, today)
    await issueInFolder(folder, { role: 'proxy', name: 'p1', hosts: ['127.0.0.1'] }, today)
    const [server, client] = [await open('storage-s1'), await open('proxy-p1')]
    expect(await meet(server, client)).toEqual({ cluster: 'pay', role: 'storage', name: 's1' })
    await server.close()
    await client.close()
  })

  test.each([
    ['old', (text: string) => text],
    ['new', (text: string) => text],
    ['new', (text: string) => text.trimEnd()],
  ])('of an old and a new authority are trusted together, the %s one first', async (first, ending) => {
    const [old, next] = [join(parent, 'old'), join(parent, 'new')]
    for (const each of [old, next]) await initAuthority(each, 'pay', today)
    await mkdir(folder)
    const both = (first === 'old' ? [old, next] : [next, old]).map((each) => readFileSync(join(each, 'ca.crt'), 'utf8'))
    writeFileSync(join(folder, 'ca.crt'), both.map(ending).join(''))
    for (const [from, issue] of [
      [old, { role: 'storage', name: 's1', hosts: ['127.0.0.1'] }],
      [next, { role: 'proxy', name: 'p1', hosts: ['127.0.0.1'] }],
    ] as const)
      for (const path of await issueInFolder(from, issue, today)) await rename(path, join(folder, path.slice(from.length + 1)))
    const [server, client] = [await open('storage-s1'), await open('proxy-p1')]
    expect(await meet(server, client)).toEqual({ cluster: 'pay', role: 'storage', name: 's1' })
    await server.close()
    await client.close()
  })
})
