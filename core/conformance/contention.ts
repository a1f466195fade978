/**
 * Many writers on one key: of 64 one wins, and no update is lost, through `modify` and between processes without it.
 * Invariant: the number in the store in the end is the number of writes that were answered as applied.
 * Why the other processes run a script of four lines and not `modify`: they show the store's own promise and nothing of ours.
 */
import { strict as assert } from 'node:assert'
import { spawn } from 'node:child_process'
import { modify } from '../kv/modify.ts'
import { applied, assertEntry, bytes, made, refused, type Case, type Context } from './suite.ts'

const writers = 64
/** Callers of `modify` at a time: below its bounds, and as many as a busy process has. */
const callersAtOnce = 500
const defaultUpdates = 10_000
const processCount = 4
const additionsAProcess = 50
/** Milliseconds for all processes, their start included. Beyond: they are killed and the case fails. */
const processesMs = 45_000

const numberOf = (value: Uint8Array): number => new DataView(value.buffer, value.byteOffset).getUint32(0)
function numberBytes(number: number): Uint8Array {
  const value = new Uint8Array(4)
  new DataView(value.buffer).setUint32(0, number)
  return value
}

export const contentionCases: readonly Case[] = [
  {
    group: 'contention',
    name: `of ${writers} creates at once one wins, and the others see the winner`,
    run: async ({ kv, key }) => {
      for (let round = 0; round < 5; round++) {
        const name = key(`-${round}`)
        const answers = await Promise.all(Array.from({ length: writers }, (_, index) => kv.create(name, bytes(index))))
        const winners = answers.filter(({ ok }) => ok)
        assert.equal(winners.length, 1, 'winners')
        for (const answer of answers) assertEntry(answer.entry, winners[0]?.entry, 'the entry in each answer')
        assertEntry((await kv.get(name)).entry, winners[0]?.entry, 'what is there')
      }
    },
  },
  {
    group: 'contention',
    name: `of ${writers} updates under one version one wins, and the others are refused with what it wrote`,
    run: async ({ kv, key }) => {
      let { version } = await made(kv, key(), bytes(0))
      for (let round = 0; round < 5; round++) {
        const ifVersion = version
        const answers = await Promise.all(Array.from({ length: writers }, (_, index) => kv.update(key(), bytes(index), { ifVersion })))
        const winner = answers.find(({ ok }) => ok)
        assert.ok(winner?.entry, 'nobody won')
        for (const answer of answers) {
          if (answer !== winner) refused(answer, 'version', 'a loser')
          assertEntry(answer.entry, winner.entry, 'the entry in each answer')
        }
        version = winner.entry.version
      }
    },
  },
  {
    group: 'contention',
    name: `of ${writers} destroys under one version one wins`,
    run: async ({ kv, key }) => {
      const { version: ifVersion } = await made(kv, key(), bytes(0))
      const answers = await Promise.all(Array.from({ length: writers }, () => kv.destroy(key(), { ifVersion })))
      assert.equal(answers.filter(({ ok }) => ok).length, 1, 'winners')
    },
  },
  {
    group: 'contention',
    name: 'read-modify-write by hand loses no update',
    run: async ({ kv, key }) => {
      await made(kv, key(), numberBytes(0))
      const adder = async (): Promise<void> => {
        let { entry } = await kv.get(key())
        for (;;) {
          assert.ok(entry, 'the entry is gone')
          const answer = await kv.update(key(), numberBytes(numberOf(entry.value) + 1), { ifVersion: entry.version })
          if (answer.ok) return
          entry = answer.entry
        }
      }
      await Promise.all(Array.from({ length: 32 }, adder))
      assert.equal(numberOf(applied({ ok: true, ...(await kv.get(key())) }, 'get').value), 32)
    },
  },
  {
    group: 'contention',
    name: 'updates through modify come to the exact sum, each caller with a result of its own (10,000 unless the options say otherwise)',
    run: async ({ kv, key, options }) => {
      const updates = options.updates ?? defaultUpdates
      const results = new Set<number>()
      for (let begun = 0; begun < updates; begun += callersAtOnce) {
        const callers = Math.min(callersAtOnce, updates - begun)
        await Promise.all(
          Array.from({ length: callers }, async () => {
            const { entry } = await modify(kv, key(), (current) => numberBytes(current ? numberOf(current) + 1 : 1), { deadline: '60s' })
            assert.ok(entry, 'modify answers with the entry')
            results.add(numberOf(entry.value))
          }),
        )
      }
      assert.equal(results.size, updates, 'results that nobody else got')
      assert.equal(numberOf(applied({ ok: true, ...(await kv.get(key())) }, 'get').value), updates, 'the sum')
    },
  },
  {
    group: 'contention',
    name: `${processCount} processes that read and write without modify lose no update`,
    skip: ({ processes, capabilities }) =>
      processes ? undefined : `'${capabilities.store}' was made without \`processes\`: no other process can reach it`,
    run: async (context) => {
      const { kv, key } = context
      await made(kv, key(), numberBytes(0))
      await Promise.all(Array.from({ length: processCount }, () => addElsewhere(context, key())))
      assert.equal(numberOf(applied({ ok: true, ...(await kv.get(key())) }, 'get').value), processCount * additionsAProcess, 'the sum')
    },
  },
]

/** Plain JavaScript: the process has Node, the user's module, and nothing of the kit. */
const elsewhere = `
const { module, args, key, additions } = JSON.parse(process.argv[1])
const kv = await (await import(module)).openKv(...args)
for (let done = 0; done < additions; ) {
  const { entry } = await kv.get(key)
  const value = Uint8Array.from(entry.value)
  const view = new DataView(value.buffer)
  view.setUint32(0, view.getUint32(0) + 1)
  if ((await kv.update(key, value, { ifVersion: entry.version })).ok) done += 1
}
await kv.close()
process.exit(0)
`

async function addElsewhere({ processes }: Context, key: string): Promise<void> {
  const task = JSON.stringify({ module: processes?.module, args: processes?.args ?? [], key, additions: additionsAProcess })
  const child = spawn(process.execPath, ['--input-type=module', '--eval', elsewhere, task], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: processesMs,
  })
  let complaints = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-2_000)
  })
  const end = await new Promise<number | string | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
  assert.equal(end, 0, `a process ended with ${end}: ${complaints}`)
}
