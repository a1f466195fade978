/**
 * The bank's ledger: one file, one line of JSON an entry, only ever appended to.
 * Invariant: an entry that `add` has answered is on disk (fsync) and is found again at the next start.
 * Why not hapax: the bank is the witness. A number that proves hapax right must not come out of hapax.
 */
import { mkdir, open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'

/** `charge` adds to the sum, `refund` takes from it, `declined` is remembered so that the same key is declined again. */
export interface LedgerEntry {
  readonly id: string
  readonly type: 'charge' | 'refund' | 'declined'
  /** The idempotency key that made it: one entry a key, for ever. */
  readonly key: string
  /** What the customer calls it: an order or a payment intent. */
  readonly reference: string
  /** In the currency's smallest unit, from 1. */
  readonly amount: number
  readonly currency: string
  /** A refund's charge. */
  readonly charge?: string
  /** Why it was declined. */
  readonly reason?: string
  readonly at: number
}

export interface Totals {
  /** How many charges were booked. */
  readonly charges: number
  readonly refunds: number
  /** Charges less refunds, in the smallest unit. */
  readonly sum: number
}

export interface Ledger {
  get(key: string): LedgerEntry | undefined
  byId(id: string): LedgerEntry | undefined
  /** All entries, or those of one reference, oldest first. */
  entries(reference?: string): readonly LedgerEntry[]
  totals(): Totals
  /** Writes the entry. Entries that arrive while the disk is busy share the next fsync. */
  add(entry: LedgerEntry): Promise<void>
  close(): Promise<void>
}

/** Opens the ledger and reads it. A last line that a crash cut short is taken off; any other damage is an error. */
export async function openLedger(path: string): Promise<Ledger> {
  await mkdir(dirname(path), { recursive: true })
  const { entries, wholeBytes } = await readEntries(path)
  const file = await open(path, 'a')
  await file.truncate(wholeBytes)

  const all: LedgerEntry[] = []
  const byKey = new Map<string, LedgerEntry>()
  const byId = new Map<string, LedgerEntry>()
  const byReference = new Map<string, LedgerEntry[]>()
  const totals = { charges: 0, refunds: 0, sum: 0 }
  const keep = (entry: LedgerEntry): void => {
    all.push(entry)
    byKey.set(entry.key, entry)
    byId.set(entry.id, entry)
    const together = byReference.get(entry.reference)
    if (together) together.push(entry)
    else byReference.set(entry.reference, [entry])
    if (entry.type === 'charge') totals.charges += 1
    if (entry.type === 'refund') totals.refunds += 1
    if (entry.type !== 'declined') totals.sum += entry.type === 'charge' ? entry.amount : -entry.amount
  }
  for (const entry of entries) keep(entry)

  let waiting: { readonly entry: LedgerEntry; readonly done: () => void; readonly failed: (error: unknown) => void }[] = []
  let writing: Promise<void> | undefined
  const writeWaiting = async (): Promise<void> => {
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      try {
        await file.appendFile(batch.map(({ entry }) => `${JSON.stringify(entry)}\n`).join(''))
        await file.datasync()
        for (const { entry, done } of batch) {
          keep(entry)
          done()
        }
      } catch (error) {
        for (const { failed } of batch) failed(error)
      }
    }
    writing = undefined
  }

  return {
    get: (key) => byKey.get(key),
    byId: (id) => byId.get(id),
    entries: (reference) => (reference === undefined ? all : (byReference.get(reference) ?? [])),
    totals: () => ({ ...totals }),
    add: (entry) =>
      new Promise((done, failed) => {
        waiting.push({ entry, done, failed })
        writing ??= writeWaiting()
      }),
    async close() {
      await writing
      await file.close()
    },
  }
}

/** @returns the entries and how many bytes they take: what follows is the torn end of a crash. */
async function readEntries(path: string): Promise<{ entries: LedgerEntry[]; wholeBytes: number }> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { entries: [], wholeBytes: 0 }
    throw error
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  const entries = whole
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      try {
        return JSON.parse(line) as LedgerEntry
      } catch (cause) {
        throw new Error(`${path}:${index + 1} is damaged: ${line.slice(0, 80)}`, { cause })
      }
    })
  return { entries, wholeBytes: Buffer.byteLength(whole) }
}
