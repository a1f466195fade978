/**
 * The cases of JunoDB's Go functional tests, each under its name, over the wire of a cluster of ours: create, get and delete
 * (juno: test/functest; juno-reference 10.1). Lives of 10 seconds are 3 seconds here, and the cases run side by side.
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
  special,
  untilExpired,
  useJuno,
} from './testdata/juno-checks.ts'
import { cases } from './testdata/juno-client.ts'

const juno = useJuno()
const bytes = (text: string): Buffer => Buffer.from(text)
const randomKey = (length = 32): Buffer => randomBytes(length)
const none = new Uint8Array()
const maxTtlS = 86_400
const tooLongTtlS = 1_296_001

describe('create', cases, () => {
  test('create: Normal', async () => {
    await createAndValidate(juno.proxyClient, randomKey(), bytes('the first create test'), 1_000)
  })

  test('create: NullKey', async () => {
    await expectStatus(juno.proxyClient.create(undefined, bytes('v'), 10), 'badParam')
  })

  test('create: MaxLenKey', async () => {
    await createAndValidate(juno.proxyClient, randomKey(128), bytes('v'), 20)
    await createAndValidate(juno.proxyClient, randomKey(256), bytes('v'), 20)
  })

  test('create: ExceedsMaxLenKey', async () => {
    await expectStatus(juno.proxyClient.create(randomKey(257), bytes('v'), 20), 'badParam')
  })

  test('create: SpecialCharNSKey', async () => {
    const key = Buffer.concat([bytes(special), randomKey(9)])
    const keyh = randomKey(4)
    await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await createAndValidate(juno.specialNSClient, keyh, bytes('v'), 100)
    await destroyAndValidate(juno.proxyClient, key)
    await destroyAndValidate(juno.specialNSClient, keyh)
  })

  test('create: SpecialCharAppPayload', async () => {
    for (const client of [juno.proxyClient, juno.specialAppClient]) {
      const key = randomKey()
      await createAndValidate(client, key, bytes(special), 100)
      await destroyAndValidate(client, key)
    }
  })

  test('create: SpecialCharNS', async () => {
    const key = Buffer.concat([bytes(special), randomKey(9)])
    await createAndValidate(juno.specialNSClient, key, bytes('value'), 10)
    await destroyAndValidate(juno.specialNSClient, key)
  })

  test('create: NullPayload', async () => {
    await createAndValidate(juno.proxyClient, randomKey(), undefined, 100)
  })

  test('create: ZeroPayload', async () => {
    await createAndValidate(juno.proxyClient, randomKey(), none, 100)
  })

  test('create: EmptyPayload', async () => {
    await createAndValidate(juno.proxyClient, randomKey(), bytes(''), 100)
  })

  test('create: MaxLenPayload', async () => {
    await createAndValidate(juno.proxyClient, randomKey(), randomBytes(204_800), 100)
  })

  test('create: ExceedsMaxLenPayload', async () => {
    await expectStatus(juno.proxyClient.create(randomKey(), randomBytes(204_801), 100), 'badParam')
  })

  test('create: DefaultLifeTime', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 0)
    expect(made.expiresAtS - made.createdAtS).toBeOneOf([1_800, 1_801])
  })

  test('create: MaxLifetime', async () => {
    await createAndValidate(juno.proxyClient, randomKey(), bytes('v'), maxTtlS)
  })

  test('create: ExceedsMaxLifetime', async () => {
    const key = randomKey()
    await expectStatus(juno.proxyClient.create(key, bytes('v'), tooLongTtlS), 'badParam')
    await expectStatus(juno.proxyClient.get(key), 'noKey')
  })

  test('create: DifferentRecord', async () => {
    const [key1, key2, key3] = [randomKey(8), randomKey(8), randomKey(8)]
    const [value1, value2, value3] = [randomBytes(8), randomBytes(8), randomBytes(8)]
    await createAndValidate(juno.proxyClient, key1, value1, 30)
    await expectStatus(juno.diffAppClient.create(key1, value2, 30), 'dupKey')
    await createAndValidate(juno.proxyClient, key2, value1, 30)
    await createAndValidate(juno.diffNSClient, key1, value1, 30)
    await createAndValidate(juno.diffNSDiffAppClient, key1, value3, 20)
    await createAndValidate(juno.diffNSClient, key3, value1, 10)
    await getRecord(juno.proxyClient, key1, value1, 1)
  })

  test('create: DupKeyNULLPayload', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 200)
    await expectStatus(juno.proxyClient.create(key, undefined, 200), 'dupKey')
    await getRecord(juno.proxyClient, key, bytes('v'), 1, made)
  })

  test('create: LifetimeExpire', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 3)
    await expectStatus(juno.proxyClient.create(key, bytes('v'), 3), 'dupKey')
    await untilExpired(juno.proxyClient, key)
    await createAndValidate(juno.proxyClient, key, bytes('w'), 10)
  })
})

describe('get', cases, () => {
  test('get: AfterSleep', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 3)
    // What is left of it falls, and its end does not move.
    let read = made
    while (read.ttlS === 3) read = await getRecord(juno.proxyClient, key, bytes('v'), 1, made)
    expect(read.ttlS).toBeLessThan(3)
    await untilExpired(juno.proxyClient, key)
  })

  test('get: NullEmptyKey', async () => {
    await expectStatus(juno.proxyClient.get(undefined), 'badParam')
    await expectStatus(juno.proxyClient.get(none), 'badParam')
  })

  test('get: NullEmptyPayload', async () => {
    for (const value of [undefined, none]) {
      const key = randomKey()
      await createAndValidate(juno.proxyClient, key, value, 10)
      expect((await getRecord(juno.proxyClient, key, value, 1)).message.payload).toBeUndefined()
    }
  })

  test('get: NonExistingRecord', async () => {
    await expectStatus(juno.proxyClient.get(randomKey()), 'noKey')
  })

  test('get: KeyLengthExceedsMax', async () => {
    await expectStatus(juno.proxyClient.get(randomKey(257)), 'badParam')
  })

  test('get: DiffNS', async () => {
    const key = randomKey()
    const [value1, value2] = [randomBytes(32), randomBytes(32)]
    await createAndValidate(juno.proxyClient, key, value1, 10)
    await createAndValidate(juno.diffNSClient, key, value2, 10)
    await getRecord(juno.proxyClient, key, value1, 1)
    await getRecord(juno.diffNSClient, key, value2, 1)
  })

  test('get: DiffNSCross', async () => {
    const [key1, key2] = [randomKey(), randomKey()]
    await createAndValidate(juno.proxyClient, key1, bytes('v'), 10)
    await createAndValidate(juno.diffNSClient, key2, bytes('v'), 10)
    await expectStatus(juno.proxyClient.get(key2), 'noKey')
    await expectStatus(juno.diffNSClient.get(key1), 'noKey')
  })

  test('get: DiffAppName', async () => {
    const key = randomKey()
    const made = await createAndValidate(juno.proxyClient, key, bytes('v'), 10)
    await getRecord(juno.diffAppClient, key, bytes('v'), 1, made)
  })

  test('get: LifetimeUpdate', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    const extended = await getExtending(juno.proxyClient, key, bytes('v'), 300, 1)
    expect(extended.ttlS).toBeGreaterThan(100)
    await getRecord(juno.proxyClient, key, bytes('v'), 1, extended)
  })

  test('get: ShortLifetimeUpdate', async () => {
    const key = randomKey()
    const made = await setAndValidate(juno.proxyClient, key, bytes('v'), 300)
    await getExtending(juno.proxyClient, key, bytes('v'), 250, 1)
    await getRecord(juno.proxyClient, key, bytes('v'), 1, made)
  })
})

describe('delete', cases, () => {
  test('delete: Basic', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await destroyAndValidate(juno.proxyClient, key)
    await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
  })

  test('delete: DiffNSAPP', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 100)
    await expectStatus(juno.diffAppClient.create(key, bytes('v'), 100), 'dupKey')
    const made = await createAndValidate(juno.diffNSClient, key, bytes('v'), 100)
    await expectStatus(juno.diffNSClient.create(key, bytes('v'), 100), 'dupKey')
    await destroyAndValidate(juno.diffAppClient, key)
    await expectStatus(juno.proxyClient.get(key), 'noKey')
    await getRecord(juno.diffNSClient, key, bytes('v'), 1, made)
  })

  test('delete: NonExisting', async () => {
    await destroyAndValidate(juno.proxyClient, randomKey())
  })

  test('delete: NULLEmptyKey', async () => {
    await expectStatus(juno.proxyClient.destroy(undefined), 'badParam')
    await expectStatus(juno.proxyClient.destroy(none), 'badParam')
  })

  test('delete: LongLen', async () => {
    await expectStatus(juno.proxyClient.destroy(randomKey(1_500)), 'badParam')
  })

  test('delete: ExpiredRecord', async () => {
    const key = randomKey()
    await createAndValidate(juno.proxyClient, key, bytes('v'), 3)
    await untilExpired(juno.proxyClient, key)
    await createAndValidate(juno.proxyClient, key, bytes('v'), 3)
    await destroyAndValidate(juno.proxyClient, key)
  })
})
