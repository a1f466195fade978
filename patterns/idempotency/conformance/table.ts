/**
 * The cases without a crash: each row of what a client sees (docs/idempotency.md), and what must not reach the store or another client.
 * Invariant: a case that says "the handler runs once" asks the stage, not the answers.
 */
import { strict as assert } from 'node:assert'
import { gunzipSync } from 'node:zlib'
import { assertProblem, assertReplayOf, isReplay, outcomeOf, running, send, sendBeside } from './client.ts'
import { amounts, leaseMs, storeDeadlineMs, type Case } from './stage.ts'

/** A header that no client may send, and why. */
const badKeys: readonly (readonly [string, string | readonly string[]])[] = [
  ['none', []],
  ['an empty line', ''],
  ['an empty string', '""'],
  ['256 characters', 'x'.repeat(256)],
  ['a list', 'a, b'],
  ['a list of strings', '"a", "b"'],
  ['an unfinished string', '"a'],
  ['two lines', ['"a"', '"b"']],
  ['the same line twice', ['"a"', '"a"']],
]

export const tableCases: readonly Case[] = [
  {
    name: 'replay: a repetition gets the first answer byte for byte, and the handler runs once',
    run: async (stage) => {
      const process = await stage.start()
      const first = await send(process)
      assert.equal(first.status, 201)
      assert.equal(isReplay(first), false, 'the first answer is no replay')
      assert.match(String(first.headers['set-cookie']), /secret/, 'the first client gets its cookie')
      for (let index = 0; index < 3; index++) assertReplayOf(first, await send(process))
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'replay: another process over the same store gives the same answer',
    run: async (stage) => {
      const first = await send(await stage.start())
      assertReplayOf(first, await send(await stage.start()))
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'replay: an answer that is no success is kept too (final: stripe, T13)',
    run: async (stage) => {
      const process = await stage.start()
      const first = await send(process, { amount: amounts.declined })
      assert.equal(first.status, 402)
      assertReplayOf(first, await send(process, { amount: amounts.declined }))
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'replay: a compressed answer keeps its encoding, and a client that takes none gets it plain (T26)',
    run: async (stage) => {
      const process = await stage.start()
      const zipped = { amount: amounts.zipped, headers: { 'accept-encoding': 'gzip' } }
      const first = await send(process, zipped)
      assertReplayOf(first, await send(process, zipped))
      const plain = await send(process, { amount: amounts.zipped, headers: { 'accept-encoding': 'identity' } })
      assert.equal(plain.headers['content-encoding'], undefined)
      assert.equal(plain.headers['content-length'], String(plain.body.length))
      assert.match(plain.headers.vary ?? '', /accept-encoding/i)
      assert.ok(plain.body.equals(gunzipSync(first.body)))
    },
  },
  {
    name: 'at once: twenty requests over two processes run one handler, and nobody gets another answer',
    run: async (stage) => {
      const processes = [await stage.start(), await stage.start()] as const
      const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => send(index % 2 === 0 ? processes[0] : processes[1])))
      assert.equal(stage.beginnings.length, 1)
      const bodies = new Set(answers.filter(({ status }) => status === 201).map(({ body }) => body.toString()))
      assert.equal(bodies.size, 1)
      for (const answer of answers.filter(({ status }) => status !== 201)) assertProblem(answer, 409, 'a request that came too early')
    },
  },
  {
    name: 'in flight: 409 with Retry-After of the rest of the lease, then the answer (T18)',
    run: async (stage) => {
      const process = await stage.start()
      const { first, release } = await running(stage, process)
      const second = await sendBeside(stage, process)
      assert.match(assertProblem(second, 409, 'a repetition while the first one runs'), /in-flight$/)
      const seconds = Number(second.headers['retry-after'])
      assert.ok(seconds >= leaseMs / 1_000 && seconds <= leaseMs / 500, `Retry-After is the lease, with jitter: not ${seconds}`)
      release()
      assertReplayOf(await first, await send(process))
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'lease: a handler that runs longer keeps its claim, for three leases (T2)',
    run: async (stage) => {
      const process = await stage.start('resume')
      const { first, release } = await running(stage, process)
      const rival = await stage.start('resume')
      for (let count = 0; count < 6; count++) {
        await stage.advance(leaseMs / 2)
        assertProblem(await sendBeside(stage, rival), 409, 'a repetition while the first one runs')
      }
      release()
      assertReplayOf(await first, await send(rival))
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'mismatch: another body is 422, while the first one runs and after it (T7)',
    run: async (stage) => {
      const process = await stage.start()
      const { first, release } = await running(stage, process)
      assertProblem(await sendBeside(stage, process, { amount: 7 }), 422, 'another body while the first one runs')
      release()
      await first
      assertProblem(await send(process, { amount: 7 }), 422, 'another body')
      assertProblem(await send(process, { path: '/charges?currency=eur' }), 422, 'another query')
      assertReplayOf(await first, await send(process), 'the body as it was before the handler changed it (T9)')
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'identity: another principal, another path and another key are other requests (T8, T16)',
    run: async (stage) => {
      const process = await stage.start()
      const first = await send(process)
      for (const other of [{ principal: 'bob' }, { path: '/refunds' }, { key: '"k-2"' }]) {
        const answer = await send(process, other)
        assert.equal(answer.status, 201)
        assert.equal(isReplay(answer), false)
        assert.ok(!answer.body.equals(first.body), 'nobody gets the answer of another request')
      }
      assert.equal(stage.beginnings.length, 4)
    },
  },
  {
    name: 'identity: a request of nobody is a fault and does not run (T8)',
    run: async (stage) => {
      const process = await stage.start()
      const answer = await send(process, { principal: '' })
      assert.ok(answer.status >= 500, `a scope that is missing is the server's mistake, not ${answer.status}`)
      assert.equal(stage.beginnings.length, 0)
      assert.equal(process.calls.store, 0)
    },
  },
  {
    name: 'key: quoted and bare are one key (T22)',
    run: async (stage) => {
      const process = await stage.start()
      assertReplayOf(await send(process, { key: '"8e03"' }), await send(process, { key: '8e03' }))
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'key: missing, empty, too long, a list, an unfinished string or two lines is 400 before anything happens (T22)',
    run: async (stage) => {
      const process = await stage.start()
      for (const [what, key] of badKeys) assertProblem(await send(process, { key }), 400, what)
      assert.equal(stage.beginnings.length, 0)
      assert.equal(process.calls.store, 0, 'no store call for a key that cannot be')
    },
  },
  {
    name: 'method: GET passes, with a key too (T21)',
    run: async (stage) => {
      const process = await stage.start()
      for (let count = 1; count <= 2; count++) {
        const answer = await send(process, { method: 'GET' })
        assert.equal(answer.status, 200)
        assert.equal(isReplay(answer), false)
        assert.equal(stage.beginnings.length, count)
      }
      assert.equal(process.calls.store, 0)
    },
  },
  {
    name: 'authentication: what it refuses uses no key up (T14)',
    run: async (stage) => {
      const process = await stage.start()
      assert.equal((await send(process, { headers: { 'x-token': 'wrong' } })).status, 401)
      assert.equal(process.calls.store, 0)
      const answer = await send(process)
      assert.equal(answer.status, 201)
      assert.equal(isReplay(answer), false)
    },
  },
  {
    name: 'route: a door that stands there twice is a fault at the first request (T25)',
    run: async (stage) => {
      const answer = await send(await stage.start(), { path: '/twice' })
      assert.ok(answer.status >= 500, `a mistake in the program is a fault, not ${answer.status}`)
      assert.equal(stage.beginnings.length, 0)
    },
  },
  {
    name: 'unstored: an answer too large for the record leaves whole, and never runs again (T11)',
    run: async (stage) => {
      const process = await stage.start()
      const first = await send(process, { amount: amounts.large })
      assert.equal(first.status, 201)
      assert.ok(first.body.length > 10_000, 'the first client gets all of it')
      for (let count = 0; count < 2; count++) {
        const again = await send(process, { amount: amounts.large })
        assert.match(assertProblem(again, 409, 'a repetition of an answer that was not kept'), /unstored$/)
        assert.equal(again.headers.location, first.headers.location, 'it says where the result is')
      }
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'client: one that leaves does not end its request; the retry gets the answer (T24)',
    run: async (stage) => {
      const process = await stage.start()
      const controller = new AbortController()
      const { first, release } = await running(stage, process, { signal: controller.signal })
      controller.abort()
      assert.equal(await outcomeOf(first), undefined)
      assertProblem(await sendBeside(stage, process), 409, 'its handler still runs')
      release()
      let answer = await send(process)
      for (let turns = 0; answer.status === 409 && turns < 1_000; turns++) answer = await send(process)
      assert.equal(isReplay(answer), true)
      assert.equal(answer.status, 201)
      assert.equal(stage.beginnings.length, 1)
    },
  },
  {
    name: 'store: while it is away the answer is 503 and nothing runs; afterwards the key is as good as new (T19)',
    run: async (stage) => {
      const process = await stage.start('refuse', { at: 'store', nth: 1, when: 'before', how: 'away' })
      const refused = send(process)
      await Promise.race([process.interrupted, refused])
      await stage.advance(storeDeadlineMs + 1_000)
      assertProblem(await refused, 503, 'a request that cannot be protected')
      assert.equal(stage.beginnings.length, 0)
      await process.resume()
      const answer = await send(process)
      assert.equal(answer.status, 201)
      assert.equal(stage.beginnings.length, 1)
    },
  },
]
