/**
 * What JunoDB's functional tests ask of each answer: version, creation, life, and that a get at once sees the same.
 * Times are compared with the clock before and after the request, which is the cluster's own: no test depends on how long anything takes.
 * Source: juno: test/testutil/testhelper.go. It allows 2 seconds.
 */
import { afterAll, beforeAll, expect } from 'vitest'
import { seededRandom } from '../../../core/base/random.ts'
import { connect } from '../../../core/client/client.ts'
import type { Address } from '../../../core/net/address.ts'
import { Pool } from '../../../core/net/pool.ts'
import { JunoCodec } from '../../../core/wire/juno-codec.ts'
import type { JunoMessage } from '../../../core/wire/juno-message.ts'
import type { Policy } from '../../proxy/policy.ts'
import type { ProxyServer } from '../proxy-server.ts'
import { startCluster, type TestCluster } from './cluster.ts'
import { JunoClient, type StatusName, type Told } from './juno-client.ts'

/** What a namespace takes in preset `juno`. */
export const ttlSDefault = 1_800
/** Of JunoDB's docker image. */
export const wrapAt = 65_535

/** Clients of one cluster, there when the first case begins. */
export interface JunoClients {
  /** NS1 and APP1; or another application, another namespace, or both. */
  readonly proxyClient: JunoClient
  readonly diffAppClient: JunoClient
  readonly diffNSClient: JunoClient
  readonly diffNSDiffAppClient: JunoClient
  /** What clients of JunoDB's refuse by themselves. */
  readonly emptyNSClient: JunoClient
  readonly emptyAppClient: JunoClient
  readonly specialNSClient: JunoClient
  readonly specialAppClient: JunoClient
  /** Versions begin again after 5. */
  readonly shortClient: JunoClient
  /** Versions begin again after 65,535. */
  readonly wrapClient: JunoClient
  readonly address: Address
}

/** 113 bytes, of which some characters take three. */
export const special = 'Q:你好嗎？A:我很好.  <?xml version="1.0" encoding="UTF-8"?><Sample_AST id="1@@#$%^&*()_+?>,<|}{[]~abc780=.'
/** 62 bytes. */
const specialNS = 'Q:你好嗎？A:<?xml version="1.0en="UTF-8"id="1@@#$%^&*()_+?'

const policy: Policy = {
  preset: 'juno',
  namespaces: [
    { name: 'Wrap', versionMax: wrapAt },
    { name: 'Short', versionMax: 5 },
  ],
  rules: [{ clients: ['*'], namespaces: ['*'] }],
}

/** A cluster with preset `juno` for all cases of a file, and one connection to its proxy that all clients share. */
export function useJuno(): JunoClients {
  const clients: Partial<{ -readonly [Name in keyof JunoClients]: JunoClients[Name] }> = {}
  let cluster: TestCluster
  let pool: Pool<JunoMessage, JunoMessage>
  beforeAll(async () => {
    cluster = await startCluster({ zones: 3, policy })
    // A proxy answers once it knows the clocks of a quorum; our client waits for that by itself.
    const ours = await connect(cluster.url)
    await ours.get('anything')
    await ours.close()
    const { address } = cluster.proxies[0] as ProxyServer
    pool = new Pool({ addresses: [address], size: 1, security: 'plain', codec: new JunoCodec(), random: seededRandom(1) })
    await pool.ready({ timeoutMs: 5_000 })
    Object.assign(clients, {
      address,
      proxyClient: new JunoClient(pool, 'NS1', 'APP1'),
      diffAppClient: new JunoClient(pool, 'NS1', 'APP2'),
      diffNSClient: new JunoClient(pool, 'NS2', 'APP1'),
      diffNSDiffAppClient: new JunoClient(pool, 'NS3', 'APP2'),
      emptyNSClient: new JunoClient(pool, '', 'APP1'),
      emptyAppClient: new JunoClient(pool, 'NS2', ''),
      specialNSClient: new JunoClient(pool, specialNS, 'APP1'),
      specialAppClient: new JunoClient(pool, 'NS1', special),
      shortClient: new JunoClient(pool, 'Short', 'APP1'),
      wrapClient: new JunoClient(pool, 'Wrap', 'APP1'),
    } satisfies JunoClients)
  })
  afterAll(async () => {
    await pool?.close(0)
    await cluster?.close()
    expect(cluster?.failures).toEqual([])
  })
  return clients as JunoClients
}

type Bytes = Uint8Array | undefined

const isValue = ({ value }: Told, expected: Bytes): void => expect(value.equals(expected ?? new Uint8Array())).toBe(true)

/** Seconds that a time told in them may be away: they are rounded. */
const roundingS = 1

/** @param before when the request was sent @param old the life before it */
function isLife(told: Told, before: number, ttlS: number, old?: Told): void {
  const keptS = old?.expiresAtS ?? 0
  expect(told.expiresAtS).toBeGreaterThanOrEqual(Math.max(keptS, Math.floor(before / 1_000) + ttlS))
  expect(told.expiresAtS).toBeLessThanOrEqual(Math.max(keptS, Math.ceil(Date.now() / 1_000) + ttlS + roundingS))
  expect(told.ttlS).toBeGreaterThan(0)
  expect(told.ttlS).toBeLessThanOrEqual(told.expiresAtS - Math.floor(before / 1_000))
  if (old !== undefined) return void expect(told.createdAtS).toBe(old.createdAtS)
  expect(told.createdAtS).toBeGreaterThanOrEqual(Math.floor(before / 1_000))
  expect(told.createdAtS).toBeLessThanOrEqual(Math.ceil(Date.now() / 1_000) + roundingS)
}

export async function expectStatus(answer: Promise<Told>, status: StatusName): Promise<Told> {
  const told = await answer
  expect(told.status).toBe(status)
  // JunoDB tells of a refused request its id, and nothing of a record.
  if (['badParam', 'noKey', 'dupKey'].includes(status)) expect([told.version, told.ttlS, told.value.length]).toEqual([0, 0, 0])
  return told
}

/** What a get shows. @param like the life that was told last */
export async function getRecord(client: JunoClient, key: Uint8Array, value: Bytes, version: number, like?: Told): Promise<Told> {
  const told = await client.get(key)
  expect(told).toMatchObject({ status: 'ok', version })
  isValue(told, value)
  if (like !== undefined) expect([told.createdAtS, told.expiresAtS]).toEqual([like.createdAtS, like.expiresAtS])
  return told
}

export async function createAndValidate(client: JunoClient, key: Uint8Array, value: Bytes, ttlS: number): Promise<Told> {
  const before = Date.now()
  const made = await client.create(key, value, ttlS)
  expect(made).toMatchObject({ status: 'ok', version: 1 })
  expect(made.value).toHaveLength(0)
  isLife(made, before, ttlS === 0 ? ttlSDefault : ttlS)
  return await getRecord(client, key, value, 1, made)
}

export async function setAndValidate(client: JunoClient, key: Uint8Array, value: Bytes, ttlS: number): Promise<Told> {
  const found = await client.get(key)
  const old = found.status === 'ok' ? found : undefined
  const before = Date.now()
  const made = await client.set(key, value, ttlS)
  expect(made).toMatchObject({ status: 'ok', version: (old?.version ?? 0) + 1 })
  isLife(made, before, ttlS === 0 && old === undefined ? ttlSDefault : ttlS, old)
  return await getRecord(client, key, value, made.version, made)
}

export async function updateAndValidate(client: JunoClient, key: Uint8Array, value: Bytes, ttlS: number): Promise<Told> {
  const old = await client.get(key)
  expect(old.status).toBe('ok')
  const before = Date.now()
  const made = await client.update(key, value, ttlS)
  expect(made).toMatchObject({ status: 'ok', version: old.version + 1 })
  isLife(made, before, ttlS, old)
  return await getRecord(client, key, value, made.version, made)
}

export async function getExtending(client: JunoClient, key: Uint8Array, value: Bytes, ttlS: number, version: number): Promise<Told> {
  const old = await client.get(key)
  const before = Date.now()
  const told = await client.get(key, ttlS)
  expect(told).toMatchObject({ status: 'ok', version })
  isValue(told, value)
  isLife(told, before, ttlS, old)
  // It is no change of the content: a context from before is as good.
  expect(told.meta.originator).toEqual(old.meta.originator)
  return told
}

export async function destroyAndValidate(client: JunoClient, key: Uint8Array): Promise<void> {
  await expectStatus(client.destroy(key), 'ok')
  await expectStatus(client.get(key), 'noKey')
}

/** Asks again until the key is dead; the runner's time box ends it. */
export async function untilExpired(client: JunoClient, key: Uint8Array): Promise<void> {
  while ((await client.get(key)).status !== 'noKey') await new Promise((resolve) => setTimeout(resolve, 50))
}
