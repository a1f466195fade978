/** A claim's life: lease, steps, crash, takeover and end. idempotency.test.ts has what comes before a handler runs. */
import { describe, expect, test } from 'vitest'
import { KvError } from '../../core/kv/errors.ts'
import { settle, testClock } from '../../core/testing/clock.ts'
import type { Once, Run } from './types.ts'
import { doorRequest, forEver, gate, request, world, type World } from './testdata/world.ts'

describe('a crash', () => {
  test('keeps the key claimed until the lease ends, then refuses until a person has looked (T1)', async () => {
    const { process, mortal, clock } = world()
    void mortal().run(request, forEver)
    await settle()
    const payments = process()
    const again = () => payments.run(request, () => 'second')
    expect(await again()).toMatchObject({ ok: false, refusal: 'in-flight' })
    await clock.advance('29999ms')
    expect(await again()).toMatchObject({ ok: false, refusal: 'in-flight' })
    await clock.advance(1)
    expect(await again()).toEqual({ ok: false, refusal: 'outcome-unknown' })
    expect(await again()).toEqual({ ok: false, refusal: 'outcome-unknown' })

    const seen = await payments.inspect(request)
    expect(seen).toMatchObject({ state: 'unknown', attempt: 1 })
    if (seen.state === 'absent') throw new Error('it is there')
    expect(await payments.release({ ...request, version: seen.version, actor: 'ada', reason: 'no charge at the bank' })).toEqual({
      ok: true,
    })
    expect(await again()).toMatchObject({ ok: true, value: 'second' })
  })

  test("resumes with afterCrash: 'resume', with a higher fence and finished steps from the record (T1, N2)", async () => {
    const { process, mortal, clock } = world()
    const called: string[] = []
    const keys: string[] = []
    const handler = (stall: boolean) => async (once: Once) => {
      const charge = await once.step('charge', ({ key }) => {
        called.push('charge')
        keys.push(key)
        return { id: 'ch_1' }
      })
      await once.step('mail', ({ key }) => {
        called.push('mail')
        keys.push(key)
        return stall ? forEver() : undefined
      })
      return { charge: charge.id, fence: once.fence }
    }
    void mortal({ afterCrash: 'resume' }).run(request, handler(true))
    await settle()
    expect(called).toEqual(['charge', 'mail'])
    await clock.advance('30s')
    const result = await process({ afterCrash: 'resume' }).run(request, handler(false))
    expect(result).toMatchObject({ ok: true, value: { charge: 'ch_1', fence: 2 } })
    expect(called).toEqual(['charge', 'mail', 'mail'])
    expect(keys[1]).toBe(keys[2]) // the same in each attempt
    expect(keys[0]).not.toBe(keys[1]) // different per step
  })

  test('lets one of many take over (T1)', async () => {
    const { process, mortal, clock } = world()
    void mortal({ afterCrash: 'resume' }).run(request, forEver)
    await clock.advance('30s')
    let runs = 0
    const results = await Promise.all(Array.from({ length: 16 }, () => process({ afterCrash: 'resume' }).run(request, () => ++runs)))
    expect(runs).toBe(1)
    for (const result of results) expect(result.ok ? result.value === 1 : result.refusal === 'in-flight').toBe(true)
  })

  test('is judged by the store clock alone: a process with a wrong clock takes nothing over (T23)', async () => {
    const { process, mortal, clock } = world()
    void mortal({ afterCrash: 'resume' }).run(request, forEver)
    await settle()
    const elsewhere = testClock(4_000_000_000_000)
    await elsewhere.advance('1h')
    const payments = process({ afterCrash: 'resume', timers: elsewhere })
    expect(await payments.run(request, () => 1)).toMatchObject({ ok: false, refusal: 'in-flight' })
    clock.set(clock.now() + 30_000)
    expect(await payments.run(request, () => 1)).toMatchObject({ ok: true })
  })
})

describe('a late owner', () => {
  test('has its result dropped, hears so, and gives its client the winner’s answer (T2)', async () => {
    const { process, mortal, clock } = world()
    const late = gate<string>()
    let once: Once | undefined
    const zombie = mortal({ afterCrash: 'resume' }).run(request, (given) => {
      once = given
      return late.promise
    })
    await clock.advance('30s')
    expect(await process({ afterCrash: 'resume' }).run(request, () => 'winner')).toMatchObject({ ok: true, value: 'winner' })
    expect(once?.signal.aborted).toBe(false)
    late.open('zombie')
    expect(await zombie).toEqual({ ok: true, value: 'winner', replayed: true, saved: true })
    expect(once?.signal.reason).toMatchObject({ code: 'CLAIM_LOST' })
    expect(once?.owned).toBe(false)
    expect(await process().run(request, () => 'third')).toMatchObject({ value: 'winner', replayed: true })
  })

  test('whose successor still runs answers in-flight (T2)', async () => {
    const { process, mortal, clock } = world()
    const late = gate<string>()
    const zombie = mortal({ afterCrash: 'resume' }).run(request, () => late.promise)
    await clock.advance('30s')
    void process({ afterCrash: 'resume' }).run(request, forEver)
    await settle()
    late.open('zombie')
    expect(await zombie).toMatchObject({ ok: false, refusal: 'in-flight' })
  })

  test('does not release the claim of its successor (T3)', async () => {
    const { process, mortal, clock } = world()
    const late = gate<never>()
    const failing = mortal({ afterCrash: 'resume', final: 'success-only' }).run(request, (once) => {
      once.release()
      return late.promise
    })
    await clock.advance('30s')
    const next = gate<string>()
    const successor = process({ afterCrash: 'resume' }).run(request, () => next.promise)
    await settle()
    late.open('zombie' as never)
    expect(await failing).toMatchObject({ ok: false, refusal: 'in-flight' })
    expect(await process().run(request, () => 'third')).toMatchObject({ ok: false, refusal: 'in-flight' })
    next.open('second')
    expect(await successor).toMatchObject({ ok: true, value: 'second', replayed: false })
  })

  test('does not turn an outcome that was given up into an answer (T2)', async () => {
    const { process, mortal, clock } = world()
    const late = gate<string>()
    const zombie = mortal().run(request, () => late.promise)
    await clock.advance('30s')
    expect(await process().run(request, () => 1)).toMatchObject({ refusal: 'outcome-unknown' })
    late.open('zombie')
    expect(await zombie).toMatchObject({ ok: false, refusal: 'outcome-unknown' })
    expect(await process().run(request, () => 1)).toMatchObject({ refusal: 'outcome-unknown' })
  })

  test('may store its answer after its lease when nobody has taken over', async () => {
    const { mortal, process, clock } = world()
    const late = gate<string>()
    const slow = mortal().run(request, () => late.promise)
    await clock.advance('45s')
    late.open('first')
    expect(await slow).toMatchObject({ ok: true, value: 'first', saved: true })
    expect(await process().run(request, () => 'second')).toMatchObject({ value: 'first', replayed: true })
  })
})

describe('an answer that the store does not take', () => {
  test('reaches the client all the same, and is stored as soon as the store is back (T4)', async () => {
    const { process, failing, clock } = world()
    let isDown = false
    const kv = failing((call) => (isDown && call.verb === 'update' ? 'unavailable' : 'pass'))
    const payments = process({}, kv)
    const running = payments.run(request, () => {
      isDown = true
      return 'charged'
    })
    await clock.advance('2s')
    expect(await running).toEqual({ ok: true, value: 'charged', replayed: false, saved: false })
    expect(await payments.run(request, () => 'again')).toMatchObject({ ok: false, refusal: 'in-flight' })
    isDown = false
    await clock.advance('3s')
    expect(await payments.run(request, () => 'again')).toMatchObject({ ok: true, value: 'charged', replayed: true })
    expect(clock.nextTimerMs()).toBeUndefined()
  })

  test('is offered until one lease has passed, and no longer (T4)', async () => {
    const { process, failing, clock } = world()
    let updates = 0
    const kv = failing((call) => (call.verb === 'update' ? (updates++, 'unavailable') : 'pass'))
    const running = process({}, kv).run(request, () => 'charged')
    await clock.advance('2s')
    expect(await running).toMatchObject({ ok: true, saved: false })
    await clock.advance('40s')
    const tried = updates
    expect(tried).toBeGreaterThan(10)
    await clock.advance('10m')
    expect(updates).toBe(tried)
    expect(clock.nextTimerMs()).toBeUndefined()
  })

  test('that is refused for want of space keeps its claim renewed meanwhile (T4)', async () => {
    const { process, failing, clock } = world()
    let isFull = false
    const kv = failing((call) => {
      const text = new TextDecoder().decode(call.value as Uint8Array | undefined)
      return isFull && text.includes('"completed"') ? new KvError('DISK_FULL') : 'pass'
    })
    const payments = process({ lease: '6s' }, kv)
    const running = payments.run(request, () => {
      isFull = true
      return 'charged'
    })
    await clock.advance('2s')
    expect(await running).toMatchObject({ ok: true, saved: false })
    await clock.advance('5s') // 7 s: the first lease of 6 s is over
    expect(await payments.run(request, () => 'again')).toMatchObject({ ok: false, refusal: 'in-flight' })
    isFull = false
    await clock.advance('1s')
    expect(await payments.run(request, () => 'again')).toMatchObject({ value: 'charged', replayed: true })
  })

  test('is stored before it is given (T5)', async () => {
    const { process, failing, store, clock } = world()
    const order: string[] = []
    const kv = failing((call) => {
      if (call.verb === 'update') order.push('store asked')
      return call.verb === 'update' ? { delay: '300ms', when: 'before' } : 'pass'
    })
    const running = process({}, kv)
      .run(request, () => 'charged')
      .then(() => order.push('answered'))
    await clock.advance('299ms')
    expect(order).toEqual(['store asked'])
    expect(store.counts().update).toBe(0)
    await clock.advance('1ms')
    await running
    expect(order).toEqual(['store asked', 'answered'])
  })
})

describe('what is final', () => {
  const answer = { head: null, body: new Uint8Array([1]) }
  const outcomes = [
    { final: 'stripe', status: 500, kept: true },
    { final: 'stripe', status: 402, kept: true },
    { final: 'draft', status: 500, kept: false },
    { final: 'draft', status: 402, kept: true },
    { final: 'success-only', status: 402, kept: false },
    { final: 'success-only', status: 201, kept: true },
  ] as const
  for (const { final, status, kept } of outcomes) {
    test(`${final} ${kept ? 'keeps' : 'does not keep'} a ${status} (T13)`, async () => {
      const { process } = world()
      const payments = process({ final })
      const run = (await payments.claim(doorRequest)) as Run
      expect(await run.complete(answer, { status })).toEqual({ type: kept ? 'saved' : 'released' })
      expect((await payments.claim(doorRequest)).type).toBe(kept ? 'replay' : 'run')
    })
  }

  test('a policy that throws keeps the answer (T13)', async () => {
    const { process } = world()
    const payments = process({
      final: () => {
        throw new Error('a mistake in the policy')
      },
    })
    await payments.run(request, () => 'first')
    expect(await payments.run(request, () => 'second')).toMatchObject({ value: 'first' })
  })

  test('a handler that says that nothing happened is not kept, whatever the policy (T13)', async () => {
    const { process } = world()
    const payments = process()
    const refusing = payments.run(request, (once) => {
      once.release()
      return 'amount missing'
    })
    expect(await refusing).toEqual({ ok: true, value: 'amount missing', replayed: false, saved: false })
    expect(await payments.run(request, () => 'charged')).toMatchObject({ ok: true, value: 'charged', replayed: false })
  })

  test('an error under stripe is kept for a person; under resume it is the next attempt’s (T13)', async () => {
    const { process } = world()
    const fail = () => {
      throw new Error('the bank did not answer')
    }
    const strict = process()
    await expect(strict.run(request, fail)).rejects.toThrow('the bank did not answer')
    expect(await strict.run(request, () => 1)).toEqual({ ok: false, refusal: 'outcome-unknown' })

    const resuming = process({ name: 'resuming', afterCrash: 'resume' })
    await expect(resuming.run(request, fail)).rejects.toThrow('the bank did not answer')
    expect(await resuming.run(request, () => 1)).toMatchObject({ ok: true, value: 1 })
  })

  test('an error under success-only gives the key back, unless a step had begun (T13)', async () => {
    const { process } = world()
    const payments = process({ final: 'success-only' })
    const early = payments.run(request, () => {
      throw new Error('before')
    })
    await expect(early).rejects.toThrow('before')
    const within = payments.run(request, (once) =>
      once.step('charge', () => {
        throw new Error('during')
      }),
    )
    await expect(within).rejects.toThrow('during')
    expect(await payments.run(request, () => 1)).toEqual({ ok: false, refusal: 'outcome-unknown' })
  })

  test('an answer that is not final keeps the finished steps for the next attempt (T13)', async () => {
    const { process } = world()
    const payments = process({ final: 'success-only' })
    const run = (await payments.claim(doorRequest)) as Run
    await run.once.step('charge', () => 'ch_1')
    await run.complete(answer, { status: 503 })
    expect(await payments.inspect(request)).toMatchObject({ state: 'released', steps: [{ name: 'charge', result: '"ch_1"' }] })
    const next = (await payments.claim(doorRequest)) as Run
    expect(next.once.fence).toBe(2)
    expect(await next.once.step('charge', () => 'ch_2')).toBe('ch_1')
  })
})

describe('the fence', () => {
  test('rises with each attempt, also over one that was handed back: a late first attempt stays outdated (T2)', async () => {
    const { process, mortal, clock } = world()
    void mortal({ afterCrash: 'resume' }).run(request, forEver)
    await clock.advance('30s')
    const payments = process({ afterCrash: 'resume' })
    const fences: number[] = []
    const attempt = (once: Once): void => {
      fences.push(once.fence)
      once.release()
    }
    await payments.run(request, attempt)
    await payments.run(request, attempt)
    expect(fences).toEqual([2, 3])
  })
})

describe('a lease', () => {
  test('is renewed at a third, so a long handler keeps its claim (T2)', async () => {
    const { process, clock, store } = world()
    const payments = process()
    const done = gate<string>()
    let once: Once | undefined
    const running = payments.run(request, (given) => {
      once = given
      return done.promise
    })
    await clock.advance('9999ms')
    expect(store.counts().update).toBe(0)
    await clock.advance(1)
    expect(store.counts().update).toBe(1)
    const seen = await payments.inspect(request)
    expect(seen).toMatchObject({ leaseEndsAt: clock.now() + 30_000 })
    await clock.advance('10m')
    expect(once).toMatchObject({ owned: true, fence: 1 })
    expect(once?.signal.aborted).toBe(false)
    expect(await payments.run(request, () => 'again')).toMatchObject({ ok: false, refusal: 'in-flight' })
    done.open('done')
    expect(await running).toMatchObject({ ok: true, value: 'done', saved: true })
    expect(clock.nextTimerMs()).toBeUndefined()
  })

  test('that cannot be renewed ends for its owner before it ends for others: the signal fires, owned is false (T2)', async () => {
    const { process, failing, clock, store } = world()
    const kv = failing((call) => (call.verb === 'update' ? 'unavailable' : 'pass'))
    let once: Once | undefined
    void process({ afterCrash: 'resume' }, kv).run(request, (given) => {
      once = given
      return forEver()
    })
    await clock.advance('29999ms')
    expect(once).toMatchObject({ owned: true })
    expect(once?.signal.aborted).toBe(false)
    await clock.advance(1)
    expect(once).toMatchObject({ owned: false })
    expect(once?.signal.reason).toMatchObject({ code: 'CLAIM_LOST' })
    await expect(once?.step('late', () => 1)).rejects.toMatchObject({ code: 'CLAIM_LOST' })
    expect(store.counts().update).toBe(0)
    expect(clock.nextTimerMs()).toBeUndefined()
  })

  test('survives an outage of the store that is shorter than it (T2)', async () => {
    const { process, failing, clock } = world()
    let isDown = true
    const kv = failing((call) => (isDown && call.verb === 'update' ? 'unavailable' : 'pass'))
    let once: Once | undefined
    void process({}, kv).run(request, (given) => {
      once = given
      return forEver()
    })
    await clock.advance('25s')
    isDown = false
    await clock.advance('2m')
    expect(once).toMatchObject({ owned: true })
    expect(await process().run(request, () => 1)).toMatchObject({ refusal: 'in-flight' })
  })

  test('whose renewal has an unknown outcome goes on, on the version that the store has (T6)', async () => {
    for (const verdict of ['unknown-before', 'unknown-after', 'unknown-later'] as const) {
      const { process, failing, clock } = world()
      const done = gate<string>()
      const kv = failing((call) => (call.verb === 'update' && call.nth % 2 === 1 ? verdict : 'pass'))
      const running = process({}, kv).run(request, () => done.promise)
      await clock.advance('2m')
      done.open('done')
      await clock.advance('2s')
      expect(await running, verdict).toMatchObject({ ok: true, value: 'done', saved: true })
    }
  })

  test('is longer than its owner believes, however slowly the store answers (T23)', async () => {
    const { process, failing, clock } = world()
    const kv = failing((call) => (call.verb === 'update' ? { delay: '900ms', when: call.nth % 2 ? 'before' : 'after' } : 'pass'))
    let once: Once | undefined
    const payments = process({ lease: '3s' }, kv)
    void payments.run(request, (given) => {
      once = given
      return forEver()
    })
    for (let look = 0; look < 200; look++) {
      await clock.advance('100ms')
      const seen = await payments.inspect(request)
      if (seen.state !== 'claimed') throw new Error(`it is ${seen.state}`)
      if (once?.owned) expect(seen.leaseEndsAt).toBeGreaterThan(clock.now())
    }
  })

  test('leaves no timer behind when the run ends, and the caller’s signal reaches the handler', async () => {
    const { process, clock } = world()
    const controller = new AbortController()
    const reason = new Error('shutting down')
    const running = process().run({ ...request, signal: controller.signal }, async (once) => {
      await new Promise<void>((resolve) => once.signal.addEventListener('abort', () => resolve(), { once: true }))
      return once.signal.reason === reason && once.owned
    })
    await settle()
    controller.abort(reason)
    expect(await running).toMatchObject({ ok: true, value: true })
    expect(clock.nextTimerMs()).toBeUndefined()
  })
})

describe('a step', () => {
  const claim = async (payments: ReturnType<World['process']>): Promise<Once> => ((await payments.claim(doorRequest)) as Run).once

  test('has a key of 43 characters that differs by step, key, scope and operation', async () => {
    const { process } = world()
    const payments = process()
    const keys = new Set<string>()
    for (const other of [{}, { key: 'key-2' }, { scope: 'tenant-2' }, { operation: 'POST /refunds' }]) {
      const { once } = (await payments.claim({ ...doorRequest, ...other })) as Run
      for (const name of ['charge', 'mail']) keys.add(await once.step(name, ({ key }) => key))
    }
    expect(keys.size).toBe(8)
    for (const key of keys) expect(key).toMatch(/^[\w-]{43}$/)
  })

  test('gives in the first attempt what the record gives in the next', async () => {
    const { process } = world()
    const once = await claim(process())
    expect(await once.step('date', () => ({ at: new Date(0) }))).toEqual({ at: '1970-01-01T00:00:00.000Z' })
    expect(await once.step('nothing', () => undefined)).toBeUndefined()
  })

  test('is refused when its name is used twice, is empty, or its result is not JSON or too large', async () => {
    const { process } = world()
    const once = await claim(process({ recordBytesMax: 1_024 }))
    await once.step('charge', () => 1)
    for (const [name, fn] of [
      ['charge', () => 1],
      ['', () => 1],
      ['n'.repeat(129), () => 1],
      ['big', () => 'x'.repeat(1_000)],
      ['bigint', () => 1n],
      ['map', () => new Map()],
    ] as const) {
      await expect(once.step<unknown>(name, fn), name).rejects.toMatchObject({ code: 'STEP_INVALID' })
    }
    expect(await once.step('after', () => 'fits')).toBe('fits')
  })

  test('that throws may be tried again under its name, with the same key', async () => {
    const { process } = world()
    const once = await claim(process())
    const keys: string[] = []
    const charge = (fails: boolean) =>
      once.step('charge', ({ key }) => {
        keys.push(key)
        if (fails) throw new Error('not reached')
        return 'ch_1'
      })
    await expect(charge(true)).rejects.toThrow('not reached')
    expect(await charge(false)).toBe('ch_1')
    expect(keys[0]).toBe(keys[1])
  })

  test('runs beside others; the writes of the record go one after the other', async () => {
    const { process, store } = world()
    const payments = process()
    const once = await claim(payments)
    const names = Array.from({ length: 20 }, (_, index) => `step-${index}`)
    expect(await Promise.all(names.map((name) => once.step(name, () => name)))).toEqual(names)
    expect(store.counts()).toMatchObject({ create: 1, update: 20 })
    expect(await payments.inspect(request)).toMatchObject({ steps: names.map((name) => ({ name, result: `"${name}"` })) })
  })

  test('is bounded in number: 64 a run', async () => {
    const { process } = world()
    const once = await claim(process())
    for (let index = 0; index < 64; index++) await once.step(`step-${index}`, () => index)
    await expect(once.step('one more', () => 1)).rejects.toMatchObject({ code: 'STEP_INVALID' })
  })

  test('whose write fails has happened: the run goes on, and the next write takes it along (T4)', async () => {
    const { process, failing, clock } = world()
    let isDown = true
    const kv = failing((call) => (isDown && call.verb === 'update' ? 'unavailable' : 'pass'))
    const payments = process({ afterCrash: 'resume' }, kv)
    const once = await claim(payments)
    const charge = once.step('charge', () => 'ch_1')
    await clock.advance('2s')
    expect(await charge).toBe('ch_1')
    isDown = false
    await once.step('mail', () => 'sent')
    expect(await payments.inspect(request)).toMatchObject({ steps: [{ name: 'charge' }, { name: 'mail' }] })
  })

  test('of a run that was overtaken is refused: CLAIM_LOST (T2)', async () => {
    const { process, mortal, clock } = world()
    const once = await claim(mortal({ afterCrash: 'resume' }))
    await clock.advance('30s')
    await process({ afterCrash: 'resume' }).run(request, () => 'winner')
    await expect(once.step('charge', () => 'ch_1')).rejects.toMatchObject({ code: 'CLAIM_LOST' })
    let ran = false
    await expect(once.step('mail', () => (ran = true))).rejects.toMatchObject({ code: 'CLAIM_LOST' })
    expect(ran).toBe(false)
  })

  test('whose results are gone once the run has completed leaves its name for the person on call', async () => {
    const { process } = world()
    const payments = process()
    await payments.run(request, async (once) => await once.step('charge', () => 'ch_1'))
    expect(await payments.inspect(request)).toMatchObject({ state: 'completed', steps: [{ name: 'charge' }], bodyBytes: 6 })
  })

  test('of a handler that streams runs without the record, which has ended for good at the first byte (T12)', async () => {
    const { process, store } = world()
    const run = (await process().claim(doorRequest)) as Run
    expect(await run.unstored({ status: 200 }, 'streamed')).toEqual({ type: 'saved' })
    store.reset()
    expect(await run.once.step('late', ({ key }) => key.length)).toBe(43)
    expect(store.counts().total).toBe(0)
  })

  test('that begins after the end is refused', async () => {
    const { process } = world()
    let kept: Once | undefined
    await process().run(request, (once) => void (kept = once))
    await expect(kept?.step('late', () => 1)).rejects.toMatchObject({ code: 'STEP_INVALID' })
  })
})
