/** The cases of JunoDB's Go functional tests for set and update: see juno-functest.test.ts. */
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  createAndValidate,
  destroyAndValidate,
  expectStatus,
  getExtending,
  getRecord,
  setAndValidate,
  special,
  untilExpired,
  updateAndValidate,
  useJuno,
} from './testdata/juno-checks.ts'
import { cases, contextOf } from './testdata/juno-client.ts'

const juno = useJuno()
const bytes = (text: string): Buffer => Buffer.from(text)
const randomKey = (length = 32): Buffer => randomBytes(length)
const none = new Uint8Array()
const maxTtlS = 86_400
const tooLongTtlS = 1_296_001

describe('set', cases, () => {
  test('set: Normal', async () => {
    const key = randomKey()
    await setAndValidate(juno.proxyClient, key, bytes('value1'), 10)
    const second = await setAndValidate(juno.proxyClient, key, bytes('value2'), 20)
    const third = await setAndValidate(juno.proxyClient, key, bytes('value3'), 15)
    expect([third.version, third.expiresAtS]).toEqual([3, second.expiresAtS])
    await setAndValidate(juno.proxyClient, key, bytes('value4'), 30)
    await setAndValidate(juno.proxyClient, key, bytes('value1'), 10)
    const sixth = await setAndValidate(juno.proxyClient, key, bytes('value1'), 40)
    await setAndValidate(juno.proxyClient, key, bytes(' '), 10)
    await getRecord(juno.proxyClient, key, bytes(' '), 7, sixth)
  })

  test('set: NullKey', async () => {
    await expectStatus(juno.proxyClient.set(undefined, bytes('v'), 10), 'badParam')
  })

  // Clients of JunoDB's refuse an empty namespace and application by themselves, so that this case does nothing there.
  test('set: EmptyKeyNSAppname', async () => {
    await expectStatus(juno.proxyClient.set(none, bytes('v'), 10), 'badParam')
    await expectStatus(juno.emptyNSClient.set(randomKey(), bytes('v'), 10), 'badParam')
    await setAndValidate(juno.emptyAppClient, randomKey(), bytes('v'), 10)
  })

  test('set: MaxLenKey', async () => {
    await setAndValidate(juno.proxyClient, randomKey(128), bytes('v'), 20)
    await setAndValidate(juno.proxyClient, randomKey(256), bytes('v'), 20)
  })

  test('set: ExceedsMaxLenKey', async () => {
    await expectStatus(juno.proxyClient.set(randomKey(257), bytes('v'), 20), 'badParam')
  })

  test('set: SpecialCharNSKey', async () => {
    await setAndValidate(juno.proxyClient, Buffer.concat([bytes(special), randomKey(9)]), bytes('v'), 100)
    await setAndValidate(juno.specialNSClient, randomKey(), bytes('v'), 100)
  })

  test('set: SpecialCharAppPayload', async () => {
    await setAndValidate(juno.proxyClient, randomKey(), bytes(special), 100)
    await setAndValidate(juno.specialAppClient, randomKey(), bytes(special), 100)
  })

  test('set: SpecialCharNS', async () => {
    await setAndValidate(juno.specialNSClient, randomKey(), bytes('value'), 10)
  })

  test('set: NullPayload', async () => {
    await setAndValidate(juno.proxyClient, randomKey(), undefined, 100)
  })

  test('set: EmptyPayload', async () => {
    await setAndValidate(juno.proxyClient, randomKey(), none, 100)
  })

  test('set: MaxLenPayload', async () => {
    await setAndValidate(juno.proxyClient, randomKey(), randomBytes(204_800), 100)
  })

  test('set: ExceedsMaxLenPayload', async () => {
    await expectStatus(juno.proxyClient.set(randomKey(), randomBytes(300_000), 100), 'badParam')
  })

  test('set: DefaultLifeTime', async () => {
    const [key, key1] = [randomKey(), randomKey()]
    const made = await setAndValidate(juno.proxyClient, key, bytes('v'), 0)
    expect(made.expiresAtS - made.createdAtS).toBeOneOf([1_800, 1_801])
    await setAndValidate(juno.proxyClient, key, bytes('v'), 50)
    await getRecord(juno.proxyClient, key, bytes('v'), 2, made)
    const short = await setAndValidate(juno.proxyClient, key1, bytes('v'), 10)
    await setAndValidate(juno.proxyClient, key1, bytes('v'), 0)
    await getRecord(juno.proxyClient, key1, bytes('v'), 2, short)
    const long = await setAndValidate(juno.proxyClient, key1, bytes('w'), 200)
    await setAndValidate(juno.proxyClient, key1, bytes('w'), 50)
    await getRecord(juno.proxyClient, key1, bytes('w'), 4, long)
  })

  test('set: MaxLifetime', async () => {
    await setAndValidate(juno.proxyClient, randomKey(), bytes('v'), maxTtlS)
  })

  test('set: ExceedsMaxLifetime', async () => {
    await expectStatus(juno.proxyClient.set(randomKey(), bytes('v'), tooLongTtlS), 'badParam')
  })

  test('set: DifferentRecord', async () => {
    const [key1, key2, key3] = [randomKey(8), randomKey(8), randomKey(8)]
    const [value1, value3] = [randomBytes(8), randomBytes(8)]
    await setAndValidate(juno.proxyClient, key1, value1, 30)
    await setAndValidate(juno.proxyClient, key1, value1, 30)
    await setAndValidate(juno.proxyClient, key2, value1, 30)
    await setAndValidate(juno.diffNSClient, key1, value1, 30)
    await setAndValidate(juno.diffNSDiffAppClient, key1, value3, 20)
    await setAndValidate(juno.diffNSClient, key3, value1, 10)
    await getRecord(juno.proxyClient, key1, value1, 2)
    await getRecord(juno.proxyClient, key2, value1, 1)
    await getRecord(juno.diffNSClient, key1, value1, 1)
    await getRecord(juno.diffNSDiffAppClient, key1, value3, 1)
  })

  test('set: DupKeyNULLPayload', async () => {
    const key = randomKey()
    await setAndValidate(juno.proxyClient, key, bytes('v'), 200)
    await expectStatus(juno.proxyClient.create(key, undefined, 100), 'dupKey')
    await setAndValidate(juno.proxyClient, key, undefined, 200)
    await getRecord(juno.proxyClient, key, undefined, 2)
  })

  test('set: LifetimeExpire', async () => {
    const key = randomKey()
    await setAndValidate(juno.proxyClient, key, bytes('v'), 3)
    await setAndValidate(juno.proxyClient, key, bytes('w'), 3)
    await untilExpired(juno.proxyClient, key)
    await setAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await getRecord(juno.proxyClient, key, bytes('v'), 1)
  })

  test('set: SetCreateDelete', async () => {
    const key = randomKey()
    await setAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await destroyAndValidate(juno.proxyClient, key)
    await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await setAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await expectStatus(juno.proxyClient.create(key, bytes('v'), 10), 'dupKey')
    await setAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await getRecord(juno.proxyClient, key, bytes('v'), 3)
    await destroyAndValidate(juno.proxyClient, key)
    await setAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await getRecord(juno.proxyClient, key, bytes('v'), 1)
  })

  test('set: SetVersionLifetime', async () => {
    const key = randomKey()
    await setAndValidate(juno.proxyClient, key, bytes('v'), 10)
    const long = await setAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await setAndValidate(juno.proxyClient, key, bytes('v'), 50)
    await getRecord(juno.proxyClient, key, bytes('v'), 3, long)
  })

  test('set: SetDiffNSCross', async () => {
    const [key1, key2] = [randomKey(), randomKey()]
    await setAndValidate(juno.proxyClient, key1, bytes('v'), 10)
    await setAndValidate(juno.diffNSClient, key2, bytes('v'), 10)
    await expectStatus(juno.proxyClient.get(key2), 'noKey')
    await expectStatus(juno.diffNSClient.get(key1), 'noKey')
    await setAndValidate(juno.proxyClient, key2, bytes('v'), 10)
    await setAndValidate(juno.proxyClient, key2, bytes('v'), 10)
    await getRecord(juno.proxyClient, key2, bytes('v'), 2)
    await getRecord(juno.diffNSClient, key2, bytes('v'), 1)
    await getRecord(juno.proxyClient, key1, bytes('v'), 1)
  })
})

describe('update', cases, () => {
  test('update: Normal', async () => {
    const [key, key1] = [randomKey(), randomKey()]
    await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    const other = await createAndValidate(juno.proxyClient, key1, bytes('v'), 10)
    const second = await updateAndValidate(juno.proxyClient, key, bytes('v'), 20)
    const third = await updateAndValidate(juno.proxyClient, key, bytes('value2'), 15)
    expect([third.version, third.expiresAtS]).toEqual([3, second.expiresAtS])
    const fourth = await updateAndValidate(juno.proxyClient, key, bytes('value3'), 30)
    await updateAndValidate(juno.proxyClient, key, bytes('update record'), 20)
    await setAndValidate(juno.proxyClient, key, bytes('v'), 20)
    await getRecord(juno.proxyClient, key, bytes('v'), 6, fourth)
    await getRecord(juno.proxyClient, key1, bytes('v'), 1, other)
  })

  test('update: CreateDupKey', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    for (const [value, ttlS] of [
      ['v', 20],
      ['value2', 15],
      ['value3', 30],
    ] as const)
      await updateAndValidate(juno.proxyClient, key, bytes(value), ttlS)
    const fifth = await updateAndValidate(juno.proxyClient, key, bytes('update record'), 20)
    await expectStatus(juno.proxyClient.create(key, bytes('v'), 10), 'dupKey')
    await getRecord(juno.proxyClient, key, bytes('update record'), 5, fifth)
    await setAndValidate(juno.proxyClient, key, bytes('v'), 20)
    await getRecord(juno.proxyClient, key, bytes('v'), 6, fifth)
  })

  test('update: NullKey', async () => {
    await expectStatus(juno.proxyClient.update(undefined, bytes('v'), 10), 'badParam')
  })

  test('update: EmptyKeyNSAppname', async () => {
    await expectStatus(juno.proxyClient.update(none, bytes('v'), 10), 'badParam')
    await expectStatus(juno.emptyNSClient.update(randomKey(), bytes('v'), 10), 'badParam')
    const key = randomKey()
    await createAndValidate(juno.emptyAppClient, key, bytes('v'), 10)
    await updateAndValidate(juno.emptyAppClient, key, bytes('v'), 20)
  })

  test('update: MaxLenKey', async () => {
    for (const length of [128, 256]) {
      const key = randomKey(length)
      await setAndValidate(juno.proxyClient, key, bytes('v'), 20)
      await updateAndValidate(juno.proxyClient, key, bytes('updatevalue'), 20)
      await getRecord(juno.proxyClient, key, bytes('updatevalue'), 2)
    }
  })

  test('update: ExceedsMaxLenKey', async () => {
    await expectStatus(juno.proxyClient.update(randomKey(257), bytes('v'), 20), 'badParam')
  })

  test('update: SpecialCharNSKey', async () => {
    const key = Buffer.concat([bytes(special), randomKey(9)])
    for (const client of [juno.proxyClient, juno.specialNSClient]) {
      await createAndValidate(client, key, bytes('v'), 10)
      await updateAndValidate(client, key, bytes('key haha'), 30)
      await getRecord(client, key, bytes('key haha'), 2)
    }
  })

  test('update: SpecialCharAppPayload', async () => {
    for (const client of [juno.proxyClient, juno.specialAppClient]) {
      const key = randomKey()
      await setAndValidate(client, key, bytes(special), 10)
      await updateAndValidate(client, key, bytes(special), 100)
    }
  })

  test('update: NullPayload', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, undefined, 100)
    await updateAndValidate(juno.proxyClient, key, undefined, 100)
    await setAndValidate(juno.proxyClient, key, bytes('set new value'), 100)
    await updateAndValidate(juno.proxyClient, key, undefined, 100)
  })

  test('update: EmptyPayload', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, none, 50)
    await updateAndValidate(juno.proxyClient, key, none, 100)
  })

  test('update: MaxLenPayload', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, randomBytes(1_200), 50)
    await updateAndValidate(juno.proxyClient, key, randomBytes(204_800), 100)
  })

  test('update: ExceedsMaxLenPayload', async () => {
    const key = randomKey()
    const value = randomBytes(300_000)
    await expectStatus(juno.proxyClient.create(key, value, 50), 'badParam')
    await expectStatus(juno.proxyClient.update(key, value, 100), 'badParam')
    await expectStatus(juno.proxyClient.update(key, value, 0), 'badParam')
  })

  test('update: DefaultLifeTime', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await updateAndValidate(juno.proxyClient, key, bytes('v'), 0)
    await getRecord(juno.proxyClient, key, bytes('v'), 2, made)
    await updateAndValidate(juno.proxyClient, key, bytes('v'), 60)
    await getRecord(juno.proxyClient, key, bytes('v'), 3, made)
  })

  test('update: MaxLifetime', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), maxTtlS)
    await updateAndValidate(juno.proxyClient, key, bytes('v'), maxTtlS)
    await getRecord(juno.proxyClient, key, bytes('v'), 2)
  })

  test('update: ExceedsMaxLifetime', async () => {
    const key = randomKey()
    await expectStatus(juno.proxyClient.create(key, bytes('v'), tooLongTtlS), 'badParam')
    await expectStatus(juno.proxyClient.update(key, bytes('v'), tooLongTtlS), 'badParam')
  })

  test('update: DifferentRecord', async () => {
    const [key1, key2] = [randomKey(8), randomKey(8)]
    const [value1, value2] = [randomBytes(8), randomBytes(8)]
    await createAndValidate(juno.proxyClient, key1, value1, 30)
    await createAndValidate(juno.proxyClient, key2, value1, 30)
    await createAndValidate(juno.diffNSClient, key1, value1, 30)
    await updateAndValidate(juno.proxyClient, key2, value1, 30)
    await updateAndValidate(juno.diffNSClient, key1, value2, 30)
    await expectStatus(juno.diffNSClient.update(key2, value2, 30), 'noKey')
    await getRecord(juno.proxyClient, key1, value1, 1)
    await getRecord(juno.proxyClient, key2, value1, 2)
    await getRecord(juno.diffNSClient, key1, value2, 2)
  })

  test('update: LifetimeExpire', async () => {
    const key = randomKey()
    await createAndValidate(juno.diffNSClient, key, bytes('v'), 3)
    await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await updateAndValidate(juno.proxyClient, key, bytes('v'), 60)
    await untilExpired(juno.diffNSClient, key)
    await updateAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await expectStatus(juno.diffNSClient.update(key, bytes('v'), 10), 'noKey')
    await getRecord(juno.proxyClient, key, bytes('v'), 3)
    await expectStatus(juno.diffNSClient.get(key), 'noKey')
  })

  test('update: DeletedRecord', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await createAndValidate(juno.diffNSClient, key, bytes('v'), 10)
    await destroyAndValidate(juno.proxyClient, key)
    await expectStatus(juno.proxyClient.update(key, bytes('v'), 10), 'noKey')
    await updateAndValidate(juno.diffNSClient, key, bytes('v'), 10)
  })

  test('update: ConditionalUpdate', async () => {
    const key = randomKey()
    const first = contextOf(await juno.proxyClient.create(key, bytes('value1'), 10))
    await expectStatus(juno.proxyClient.set(key, bytes('value2'), 20), 'ok')
    const third = contextOf(await juno.proxyClient.update(key, bytes('value3'), 80))
    const refused = await expectStatus(juno.proxyClient.update(key, bytes('cupdate1'), 0, first), 'versionConflict')
    expect([refused.version, refused.value.toString()]).toEqual([3, 'value3'])
    const fourth = contextOf(await expectStatus(juno.proxyClient.update(key, bytes('cupdate2'), 90, third), 'ok'))
    await expectStatus(juno.proxyClient.update(key, bytes('cupdate3'), 0, third), 'versionConflict')
    const fifth = contextOf(await expectStatus(juno.proxyClient.update(key, bytes('cupdate4'), 100, fourth), 'ok'))
    expect(fifth.version).toBe(5)
    await expectStatus(juno.proxyClient.create(key, bytes('v'), 10), 'dupKey')
    await expectStatus(juno.proxyClient.set(key, bytes('v'), 10), 'ok')
    const extended = await getExtending(juno.proxyClient, key, bytes('v'), 150, 6)
    await expectStatus(juno.proxyClient.update(key, bytes('w'), 80), 'ok')
    await getRecord(juno.proxyClient, key, bytes('w'), 7, extended)
    await destroyAndValidate(juno.proxyClient, key)
    await expectStatus(juno.proxyClient.update(key, bytes('cupdate1'), 0, fifth), 'noKey')
    await expectStatus(juno.proxyClient.update(key, bytes('v'), 80), 'noKey')
  })
})
