/**
 * The cases of JunoDB's Java functional tests that ask for something else than the Go ones: batches, whose requests have one opaque, contexts
 * that are a version alone, lives of three days, and versions that begin again (juno: client/Java/Juno/FunctionalTests; juno-reference 10.5).
 */
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  createAndValidate,
  destroyAndValidate,
  expectStatus,
  getExtending,
  getRecord,
  setAndValidate,
  untilExpired,
  useJuno,
} from './testdata/juno-checks.ts'
import { cases, contextOf, sendBatch, versionOf, type OpcodeName, type Sending, type Told } from './testdata/juno-client.ts'

const juno = useJuno()
const bytes = (text: string): Buffer => Buffer.from(text)
const randomKey = (length = 64): Buffer => randomBytes(length)
const threeDaysS = 259_200

const batch = (verb: OpcodeName, sendings: readonly Sending[]): Promise<readonly Told[]> =>
  sendBatch(
    juno.address,
    sendings.map((sending) => juno.proxyClient.message(verb, sending)),
  )
const statuses = (all: readonly Told[]): readonly string[] => all.map(({ status }) => status)
const many = <T>(count: number, make: (index: number) => T): readonly T[] => Array.from({ length: count }, (_, index) => make(index))
const ok = (count: number): readonly string[] => many(count, () => 'ok')

describe('create, get, set and update', cases, () => {
  test.each(['create', 'set'] as const)('%s: With3DaysLifetime, WithMorethan3DaysLifetime', async (verb) => {
    const key = randomKey()
    await expectStatus(juno.proxyClient[verb](key, bytes('v'), threeDaysS + 1), 'badParam')
    expect((await expectStatus(juno.proxyClient[verb](key, bytes('v'), threeDaysS), 'ok')).ttlS).toBe(threeDaysS)
  })

  test('get: WithMaxLifetime, WithMoreThanMaxLifetime', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await expectStatus(juno.proxyClient.get(key, threeDaysS + 1), 'badParam')
    await getRecord(juno.proxyClient, key, bytes('v'), 1, made)
    await getExtending(juno.proxyClient, key, bytes('v'), threeDaysS, 1)
  })

  test('create: WithChineseKey', async () => {
    await createAndValidate(juno.proxyClient, Buffer.concat([bytes('Q:你好嗎？A:我很好.'), randomKey(9)]), bytes('v'), 100)
  })

  test('update: With3DaysLifetime, WithMorethan3DaysLifetime', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await expectStatus(juno.proxyClient.update(key, bytes('w'), threeDaysS + 1), 'badParam')
    await getRecord(juno.proxyClient, key, bytes('v'), 1, made)
    expect((await juno.proxyClient.update(key, bytes('w'), threeDaysS)).ttlS).toBe(threeDaysS)
  })
})

describe('conditional update by the version alone', cases, () => {
  test('testCUpdateWithDiffPayload, testCUpdateVersionTooOld, testCUpdateVersionTooOld2', async () => {
    const key = randomKey()
    const first = versionOf(await createAndValidate(juno.proxyClient, key, bytes('v'), 10))
    const second = await expectStatus(juno.proxyClient.update(key, bytes('w'), 15, first), 'ok')
    expect([second.version, second.ttlS]).toEqual([2, 15])
    const refused = await expectStatus(juno.proxyClient.update(key, bytes('x'), 60, first), 'versionConflict')
    expect([refused.version, refused.value.toString()]).toEqual([2, 'w'])
    await getRecord(juno.proxyClient, key, bytes('w'), 2, second)
  })

  test('testCUpdateWithLifeTimeAndPayload, testCUpdateWithZeroPayload, testCUpdateWith200KBPayload', async () => {
    const key = randomKey()
    const payload = randomBytes(204_800)
    let told = await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    for (const value of [new Uint8Array(), payload, undefined]) {
      told = await expectStatus(juno.proxyClient.update(key, value, 100, versionOf(told)), 'ok')
      await getRecord(juno.proxyClient, key, value, told.version, told)
    }
    await expectStatus(juno.proxyClient.update(key, randomBytes(204_801), 100, versionOf(told)), 'badParam')
  })

  test('testCUpdateKeyWhichDoesNotExist, testCUpdateDifferentNamespace', async () => {
    const key = randomKey()
    await expectStatus(juno.proxyClient.update(key, bytes('v'), 10, { version: 1 }), 'noKey')
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await expectStatus(juno.diffNSClient.update(key, bytes('w'), 10, versionOf(made)), 'noKey')
    await expectStatus(juno.diffAppClient.update(key, bytes('w'), 10, versionOf(made)), 'ok')
  })

  test('testCUpdateExpiredData', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 3)
    await untilExpired(juno.proxyClient, key)
    await expectStatus(juno.proxyClient.update(key, bytes('w'), 5, versionOf(made)), 'noKey')
  })

  // Versions of this namespace begin again after 5 and not after 65,535, so that the 65,540 steps are 20.
  test('testCUpdateVersionOverflow', async () => {
    const client = juno.shortClient
    const key = randomKey()
    const made = await createAndValidate(client, key, bytes('v'), 20)
    let expected = 1
    for (let step = 1; step <= 20; step++) {
      const read = await getExtending(client, key, bytes(step === 1 ? 'v' : `${step - 1}`), 20 + step, expected)
      expect(read.createdAtS).toBe(made.createdAtS)
      // Neither the version that it had before, nor one that is none, nor what a count without an end would be.
      for (const version of [expected === 1 ? 5 : expected - 1, 6, step + 5])
        await expectStatus(client.update(key, bytes('x'), 5, { version }), 'versionConflict')
      const written = await expectStatus(client.update(key, bytes(`${step}`), 5, versionOf(read)), 'ok')
      expected = (expected % 5) + 1
      expect(written.version).toBe(expected)
    }
  })

  test('testCUpdateVersionOverflow: a whole context of five changes ago has the same version, and is refused', async () => {
    const client = juno.shortClient
    const key = randomKey()
    const old = await createAndValidate(client, key, bytes('v'), 20)
    for (const version of [2, 3, 4, 5, 1]) expect((await client.set(key, bytes('w'))).version).toBe(version)
    const refused = await expectStatus(client.update(key, bytes('x'), 0, contextOf(old)), 'versionConflict')
    expect(refused.version).toBe(old.version)
    await expectStatus(client.update(key, bytes('x'), 0, contextOf(await client.get(key))), 'ok')
  })
})

describe('a batch, whose requests all have one opaque', cases, () => {
  test('testBatchCreate, testBatchGet, testBatchDestroy', async () => {
    const made = many(100, () => ({ key: randomKey(20), value: randomBytes(30), ttlS: 20 }))
    const created = await batch('create', made)
    expect(statuses(created)).toEqual(ok(100))
    const got = await batch(
      'get',
      made.map(({ key }) => ({ key })),
    )
    for (const [index, { key, value }] of made.entries()) {
      expect(got[index]).toMatchObject({ status: 'ok', version: 1 })
      expect([Buffer.from(got[index]?.message.key ?? []), got[index]?.value]).toEqual([key, value])
    }
    expect(
      statuses(
        await batch(
          'destroy',
          made.map(({ key }) => ({ key })),
        ),
      ),
    ).toEqual(ok(100))
    expect(
      new Set(
        statuses(
          await batch(
            'get',
            made.map(({ key }) => ({ key })),
          ),
        ),
      ),
    ).toEqual(new Set(['noKey']))
  })

  test('testBatchCreateDuplicateKeys', async () => {
    const taken = randomKey()
    await createAndValidate(juno.proxyClient, taken, bytes('v'), 20)
    const keys = many(10, (index) => (index === 7 ? taken : randomKey(20)))
    const told = await batch(
      'create',
      keys.map((key) => ({ key, value: bytes('w'), ttlS: 20 })),
    )
    expect(told.map(({ status, version }) => [status, version])).toEqual(keys.map((key) => (key === taken ? ['dupKey', 0] : ['ok', 1])))
  })

  test('testBatchCreateDuplicateKeys: one key twice in one batch is made once', async () => {
    const key = randomKey()
    const told = await batch(
      'create',
      many(10, (index) => ({ key, value: bytes(`${index}`), ttlS: 20 })),
    )
    expect([...statuses(told)].toSorted()).toEqual([...many(9, () => 'dupKey'), 'ok'])
    const winner = told.findIndex(({ status }) => status === 'ok')
    await getRecord(juno.proxyClient, key, bytes(`${winner}`), 1)
  })

  test('testBatchCreate129BytesKeys, EmptyKeys, MoreThan200KPayload, TTLmorethan3days: those alone are refused', async () => {
    const value = bytes('v')
    const wrong: readonly Sending[] = [
      { key: randomKey(257), value },
      { key: new Uint8Array(), value },
      { key: randomKey(), value: randomBytes(204_801) },
      { key: randomKey(), value, ttlS: threeDaysS + 1 },
    ]
    for (const verb of ['create', 'set'] as const) {
      const told = await batch(
        verb,
        wrong.flatMap((one) => [{ key: randomKey(), value }, one]),
      )
      expect(statuses(told)).toEqual(wrong.flatMap(() => ['ok', 'badParam']))
    }
  })

  test('testBatchCreateDiffLifeTimePayloads, NoLifeTime, ZeroPayload, NullPayload', async () => {
    const made = [0, 10, 100, threeDaysS].flatMap((ttlS) =>
      [new Uint8Array(), undefined, bytes('v')].map((value) => ({ key: randomKey(), value, ttlS })),
    )
    const told = await batch('create', made)
    expect(told.map(({ status, ttlS }) => [status, ttlS])).toEqual(made.map(({ ttlS }) => ['ok', ttlS === 0 ? 1_800 : ttlS]))
  })

  test('testBatchGetExpiredRecord, testBatchGetNotExist, testGetWithLifeTimeExtented', async () => {
    const [short, long, never] = [randomKey(), randomKey(), randomKey()]
    await createAndValidate(juno.proxyClient, short, bytes('v'), 3)
    await createAndValidate(juno.proxyClient, long, bytes('v'), 10)
    await untilExpired(juno.proxyClient, short)
    const told = await batch(
      'get',
      [short, long, never].map((key) => ({ key, ttlS: 100 })),
    )
    expect(told.map(({ status, ttlS }) => [status, ttlS])).toEqual([
      ['noKey', 0],
      ['ok', 100],
      ['noKey', 0],
    ])
  })

  test('testBatchCreateSet, testBatchUpdatePayloadLifetimeVersion, testBatchUpdateKeyNotExists', async () => {
    const keys = many(5, () => randomKey())
    const set = await batch(
      'set',
      keys.map((key) => ({ key, value: bytes('v') })),
    )
    expect(set.map(({ status, version }) => [status, version])).toEqual(keys.map(() => ['ok', 1]))
    const updated = await batch(
      'update',
      keys.map((key, index) => ({ key, value: bytes('w'), ttlS: 100, context: versionOf(set[index] as Told) })),
    )
    expect(updated.map(({ status, version }) => [status, version])).toEqual(keys.map(() => ['ok', 2]))
    const told = await batch(
      'update',
      [...keys, randomKey()].map((key) => ({ key, value: bytes('x') })),
    )
    expect(statuses(told)).toEqual([...ok(5), 'noKey'])
  })

  test('testBatchUpdateVersion0: it is no condition', async () => {
    const keys = many(5, () => randomKey())
    for (const key of keys) await setAndValidate(juno.proxyClient, key, bytes('v'), 0)
    expect(
      statuses(
        await batch(
          'update',
          keys.map((key) => ({ key, value: bytes('w'), context: { version: 0 } })),
        ),
      ),
    ).toEqual(ok(5))
  })

  // There a version that is later than the record's is taken too, which loses an update after a destroy and a create (decision 0008).
  test('testBatchUpdateInvalidVersion: a version that is not the present one is refused, also a later one', async () => {
    const keys = many(6, () => randomKey())
    for (const key of keys) await setAndValidate(juno.proxyClient, key, bytes('v'), 20)
    await batch(
      'update',
      keys.map((key) => ({ key, value: bytes('w') })),
    )
    const versions = [6, 4, 0, 65_535, 1, 2]
    const told = await batch(
      'update',
      keys.map((key, index) => ({ key, value: bytes('x'), context: { version: versions[index] } })),
    )
    const refused = 'versionConflict'
    expect(statuses(told)).toEqual([refused, refused, 'ok', refused, refused, 'ok'])
    expect(told.map(({ version }) => version)).toEqual([2, 2, 3, 2, 2, 3])
  })

  test('testBatchDestoryKeyNotExists', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 20)
    expect(statuses(await batch('destroy', [{ key }, { key: randomKey() }, { key: randomKey(257) }]))).toEqual(['ok', 'ok', 'badParam'])
    await destroyAndValidate(juno.proxyClient, key)
  })
})
