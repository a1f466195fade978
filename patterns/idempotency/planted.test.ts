/**
 * G26: for each trap a mistake is planted in the sources, and a test that names the trap must fail.
 * Invariant: nothing here is random; the same mistake fails the same test in each run.
 * Why in the sources and not in a double: a test that cannot fail shows nothing, and only the shipped lines can show that it can.
 */
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'

interface Mistake {
  readonly trap: string
  readonly what: string
  /** Under patterns/idempotency, unless it says more. */
  readonly file: string
  readonly find: string
  readonly replace: string
  /** The file whose tests of this trap are run. */
  readonly tests: string
}
interface Result {
  readonly applied: number
  readonly failed: readonly string[]
}

/** T14 has none: the order of middleware is the application's. */
const mistakes: readonly Mistake[] = [
  {
    trap: 'T1',
    what: 'a take-over does not wait for the lease',
    file: 'rules.ts',
    find: 'if (leftMs > 0) return',
    replace: 'if (leftMs > 25_000) return',
    tests: 'claim.test.ts',
  },
  {
    trap: 'T2',
    what: 'a write forgets the version that it rests on',
    file: 'store.ts',
    find: 'kv.update(storeKey, bytes, { ifVersion,',
    replace: 'kv.update(storeKey, bytes, {',
    tests: 'claim.test.ts',
  },
  {
    trap: 'T3',
    what: 'a release destroys by key',
    file: 'store.ts',
    find: 'destroy(storeKey, { ifVersion,',
    replace: 'destroy(storeKey, {',
    tests: 'claim.test.ts',
  },
  {
    trap: 'T4',
    what: 'an answer that could not be stored is not offered again',
    file: 'claim.ts',
    find: 'void this.#insist(event)',
    replace: 'this.#finish()',
    tests: 'claim.test.ts',
  },
  {
    trap: 'T5',
    what: 'an answer is given before it is stored',
    file: 'idempotency.ts',
    find: 'const outcome = await claim.complete(',
    replace: "const outcome: any = { type: 'saved' }; void claim.complete(",
    tests: 'claim.test.ts',
  },
  {
    trap: 'T6',
    what: 'a claim has no owner that it could be known by',
    file: 'store.ts',
    find: "standing.record.owner === record.owner ? 'own' : 'refused'",
    replace: "'refused'",
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T7',
    what: 'the state is looked at before the fingerprint',
    file: 'rules.ts',
    find: 'if (record.fingerprint !== fingerprint)',
    replace: "if (record.state !== 'claimed' && record.fingerprint !== fingerprint)",
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T8',
    what: 'the key alone is the identity',
    file: 'fingerprint.ts',
    find: "['record', name, scope, operation, key]",
    replace: "['record', key]",
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T9',
    what: 'a body that nobody parsed is taken for none',
    file: 'http.ts',
    find: 'own === undefined && isUnparsed(req, body)',
    replace: 'own === undefined && false',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T9',
    what: 'members in another order are another request',
    file: 'fingerprint.ts',
    find: "['json', canonicalJson(body)]",
    replace: "['json', JSON.stringify(body)]",
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T10',
    what: 'the hash is weak',
    file: 'fingerprint.ts',
    find: "hash('sha256', text",
    replace: "hash('md5', text",
    tests: 'fingerprint.test.ts',
  },
  {
    trap: 'T11',
    what: 'an answer that is too large gives the key back',
    file: 'claim.ts',
    find: "(await this.unstored(answer.head, 'too-large'))",
    replace: '(await this.release())',
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T12',
    what: 'a streamed answer gives the key back',
    file: 'http.ts',
    find: 'run.unstored(this.#headOf(head), reason)',
    replace: 'run.release()',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T13',
    what: 'every answer is final',
    file: 'rules.ts',
    find: "if (final === 'stripe' || ending.type === 'returned') return true",
    replace: 'return true',
    tests: 'claim.test.ts',
  },
  {
    trap: 'T15',
    what: 'all headers are stored',
    file: 'http.ts',
    find: 'headers.filter(([name]) => this.#kept.has(name.toLowerCase()))',
    replace: 'headers',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T16',
    what: 'the principal is no part of the identity',
    file: 'fingerprint.ts',
    find: "['record', name, scope, operation, key]",
    replace: "['record', name, operation, key]",
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T17',
    what: 'a record that vanished lets the request run without a claim',
    file: 'idempotency.ts',
    find: 'if (claim !== undefined) return claim\n      }',
    replace:
      'if (claim !== undefined) return claim\n        return this.#hold({ version: undefined, now: 0 } as any, first, sentAt, storeKey, request)\n      }',
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T18',
    what: 'all come back at once',
    file: 'idempotency.ts',
    find: 'Math.ceil(ms * (1 + this.#settings.random() / 4))',
    replace: 'Math.ceil(ms)',
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T19',
    what: 'a request runs unprotected while the store is away',
    file: 'idempotency.ts',
    find: "if (settings.onStoreError === 'reject')",
    replace: 'if (false)',
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T20',
    what: 'a store with several homes for a key is taken',
    file: 'idempotency.ts',
    find: "sites: 'one', ",
    replace: '',
    tests: 'idempotency.test.ts',
  },
  {
    trap: 'T21',
    what: 'every method is protected',
    file: 'http.ts',
    find: 'if (!this.#methods.has(method))',
    replace: 'if (false)',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T22',
    what: 'the first of two keys is taken',
    file: 'key.ts',
    find: 'if (list.length > 1)',
    replace: 'if (list.length > 9)',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T23',
    what: 'a lease is compared with the process’s own clock',
    file: 'rules.ts',
    find: 'leaseEndOf(record, createdAt) - now',
    replace: 'leaseEndOf(record, createdAt) - Date.now()',
    tests: 'claim.test.ts',
  },
  {
    trap: 'T24',
    what: 'a client that leaves gives the key back',
    file: 'http.ts',
    find: 'abandon: () => run.abandon()',
    replace: 'abandon: () => void run.release()',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T25',
    what: 'a second door is not seen',
    file: 'http.ts',
    find: 'if (before !== undefined) {',
    replace: 'if (false) {',
    tests: 'doors.test.ts',
  },
  {
    trap: 'T26',
    what: 'a replay forgets how its body is encoded',
    file: 'http.ts',
    find: "  'content-encoding',\n",
    replace: '',
    tests: 'doors-express.test.ts',
  },
]

const room = 'patterns/idempotency/'
const placed = (file: string): string => (file.startsWith('core/') ? file : room + file)

/** Changes nothing: what is found here is not found by the mistake. */
const control = { trap: 'T7', file: 'rules.ts', find: 'record.fingerprint !== fingerprint', tests: 'rules.test.ts' }

async function plantAll(): Promise<readonly Result[]> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('testdata/plant.mjs', import.meta.url))], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.end(
    JSON.stringify(
      [...mistakes, { ...control, replace: control.find }].map((one) => ({ ...one, file: placed(one.file), tests: placed(one.tests) })),
    ),
  )
  const said = await text(child.stdout)
  return JSON.parse(said.slice(said.lastIndexOf('-----\n') + 6)) as Result[]
}

describe('a planted mistake fails a test of its trap', () => {
  let results: readonly Result[] = []
  beforeAll(async () => {
    results = await plantAll()
  }, 180_000)

  test.each(mistakes.map((mistake, index) => ({ ...mistake, index })))('$trap: $what', ({ index }) => {
    const result = results[index]
    expect(result?.applied, 'the line to be changed is there exactly once').toBe(1)
    expect(result?.failed).not.toEqual([])
  })

  test('and nothing fails where nothing was changed', () => {
    expect(results.at(-1)).toMatchObject({ applied: 1, failed: [] })
  })

  test('covers every trap but T14', () => {
    const all = Array.from({ length: 26 }, (_, index) => `T${index + 1}`).filter((trap) => trap !== 'T14')
    expect([...new Set(mistakes.map(({ trap }) => trap))]).toEqual(all)
  })
})
