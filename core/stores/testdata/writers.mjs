// The process that is killed: 128 writers on one embedded store. Says each acknowledged write on its standard output, one JSON line a write.
// argv: the bundled store, the directory, the durability, the number of the round.
import { writeSync } from 'node:fs'
const [, , bundle, dir, durability, round] = process.argv
const { embedded } = await import(bundle)
const kv = await embedded({ dir, durability })
const say = (acknowledged) => writeSync(1, `${JSON.stringify(acknowledged)}\n`)
say({ ready: true })

/** A value that shows when half of it is missing. */
const valueOf = (writer, count) => Buffer.from(JSON.stringify({ writer, round: Number(round), count, filler: 'x'.repeat((writer * 7 + count) % 300), end: true }))

async function write(writer) {
  const key = `writer-${writer}`
  let { entry } = await kv.get(key)
  for (let count = 0; ; count++) {
    const value = valueOf(writer, count)
    const answer = entry ? await kv.update(key, value, { ifVersion: entry.version }) : await kv.create(key, value)
    if (!answer.ok) throw new Error(`nobody else writes ${key}, and yet: ${answer.refusal}`)
    entry = answer.entry
    say({ key, version: entry.version, value: Buffer.from(value).toString('base64') })
    const extra = `once-${round}-${writer}-${count}`
    const made = await kv.create(extra, value)
    if (!made.ok) throw new Error(`${extra} was there`)
    say({ key: extra, version: made.entry.version, value: Buffer.from(value).toString('base64') })
  }
}
await Promise.all(Array.from({ length: 128 }, (_, writer) => write(writer)))
