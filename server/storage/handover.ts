/**
 * Giver: server A's side of a planned move of one shard to server B of the same zone. DESIGN.md, V5 to V12.
 * Pure. Invariant: once frozen, nothing but the map ends the freeze; the map is asked to name B only after B said that the tail is durable.
 *
 *   offering --ready--> walking --all keys once--> chasing --few keys left--> freezing --tail stored--> switching --map--> over
 *                                                                                  \-- too long --> resuming --map--/
 *
 * Why B stores what A sends and nothing else: what a proxy sent to B directly A may have refused, and B would vote for it (interleaving 8).
 */
import type { HandedKey, MapAnswer, MapRequest, Offer, Part } from '../../core/wire/server-message.ts'
import { movedTo, nextEpoch } from '../cluster/map.ts'
import type { Instant } from '../register/work.ts'
import type { StorageTimes } from './marks.ts'
import type { Replicas } from './replicas.ts'

/** Keys of a part. */
const keysMax = 256
/** Keys written meanwhile that are remembered; beyond that the walk begins anew. */
const changedMax = 65_536
/** Lengths of a freeze without a word of B, before it: then there is no move. */
const patienceFreezes = 10
/** Parts of what changed meanwhile: then it freezes, however many keys are left. */
const chasesMax = 4_096

export interface GiverPorts {
  nextId(): number
  send(to: string, message: Offer | Part): void
  askMap(request: MapRequest): void
}

type Step = 'offering' | 'walking' | 'chasing' | 'freezing' | 'switching' | 'resuming' | 'over'

export class Giver {
  readonly to: string | undefined
  readonly #shard: number
  readonly #zone: number
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #ports: GiverPorts
  readonly #epoch: number
  #step: Step = 'offering'
  #id: number
  /** Written since the part that had them was read, or not sent yet. */
  #changed = new Set<string>()
  #after: string | undefined
  #chases = 0
  #part: Part | undefined
  #number = 0
  #retryMono = -Infinity
  #frozenMono: number | undefined
  /** When B was last heard. */
  #heardMono: number | undefined
  #isStored = false

  /** @param to undefined: it was frozen when this server ended; only the map can say what became of it */
  constructor(shard: number, zone: number, to: string | undefined, replicas: Replicas, times: StorageTimes, ports: GiverPorts) {
    this.#shard = shard
    this.#zone = zone
    this.to = to
    this.#replicas = replicas
    this.#times = times
    this.#ports = ports
    this.#epoch = replicas.of(shard)?.marks.epoch ?? 0
    this.#id = ports.nextId()
    if (to === undefined) this.#step = 'resuming'
    else replicas.onWrite(shard, (key) => this.#changed.add(key))
  }

  get isOver(): boolean {
    return this.#step === 'over'
  }
  /** B has all of it, durably: what is here is no longer needed once the map names B. */
  get isStored(): boolean {
    return this.#isStored
  }

  /** The map has said what becomes of the shard, or it is not ours to give. */
  stop(): void {
    this.#step = 'over'
    this.#replicas.onWrite(this.#shard, undefined)
  }

  tick(now: Instant): void {
    const replica = this.#replicas.of(this.#shard)
    if (this.#step === 'over' || replica === undefined) return
    const { row, state } = replica.marks
    if (this.#isOutdated) return this.stop()
    this.#frozenMono = state === 'frozen' ? (this.#frozenMono ?? now.mono) : undefined
    this.#heardMono ??= now.mono
    const isSilent = now.mono - this.#heardMono > patienceFreezes * this.#times.freezeMs
    if (state !== 'frozen' && isSilent) return this.stop()
    if (this.#changed.size > changedMax) this.#again()
    if (row === undefined || now.mono < this.#retryMono) return
    this.#retryMono = now.mono + this.#times.retryMs
    if (this.#frozenMono !== undefined && now.mono - this.#frozenMono > this.#times.freezeMs) this.#step = 'resuming'
    // Compare and set: should B have been named by an earlier word of ours, this one does not take (V10).
    if (this.#step === 'resuming') return this.#ports.askMap({ type: 'map-swap', id: this.#id, row: nextEpoch(row) })
    if (this.to === undefined) return
    if (this.#step === 'offering') return this.#ports.send(this.to, { type: 'offer', id: this.#id, shard: this.#shard, row })
    if (this.#step === 'switching') return this.#ports.askMap({ type: 'map-swap', id: this.#id, row: movedTo(row, this.#zone, this.to) })
    if (this.#part !== undefined) this.#ports.send(this.to, this.#part)
  }

  heardReady(id: number, now: Instant): void {
    if (this.#step !== 'offering' || id !== this.#id) return
    this.#heardMono = now.mono
    this.#step = 'walking'
    // A walk reads the disk: what was accepted before the writes were noted has to be on it.
    this.#replicas.journal.afterAll(() => {
      if (this.#step === 'walking' && id === this.#id) this.#next(now)
    })
  }

  /** B began anew, so what it stored is gone. A freeze waits for the map all the same. */
  heardRefused(id: number, now: Instant): void {
    if (id !== this.#id || this.#step === 'over') return
    if (this.#step === 'offering') return this.stop() // it has the shard in another way
    if (this.#step === 'freezing' || this.#step === 'switching' || this.#step === 'resuming') this.#step = 'resuming'
    else this.#again()
    this.#retryMono = -Infinity
    this.tick(now)
  }

  heardStored(id: number, number: number, now: Instant): void {
    const part = this.#part
    if (id !== this.#id || part === undefined || number !== part.number) return
    this.#part = undefined
    this.#heardMono = now.mono
    if (part.tail === undefined) return this.#next(now)
    this.#isStored = true
    if (this.#step !== 'freezing') return
    this.#step = 'switching'
    this.#retryMono = -Infinity
    this.tick(now)
  }

  /** The map after a transaction. What it says of the shard comes as a row. */
  heardMap({ id }: MapAnswer): void {
    if (id === this.#id) this.#retryMono = -Infinity
  }

  /** B waits for the epoch after the one of its offer. A shard that is in another one now moves in a new attempt, or not at all (V7). */
  get #isOutdated(): boolean {
    const { epoch, row, state } = this.#replicas.of(this.#shard)?.marks ?? {}
    return state !== 'frozen' && (epoch !== this.#epoch || row?.epoch !== this.#epoch)
  }

  #again(): void {
    this.#step = 'offering'
    this.#id = this.#ports.nextId()
    this.#changed = new Set()
    this.#after = undefined
    this.#chases = 0
    this.#part = undefined
    this.#number = 0
    this.#retryMono = -Infinity
  }

  #next(now: Instant): void {
    if (this.#step === 'walking') {
      const { keys, isLast } = this.#replicas.page(this.#shard, this.#after, keysMax)
      this.#after = keys.at(-1)?.key ?? this.#after
      if (isLast) this.#step = 'chasing'
      return this.#send(keys, false, now)
    }
    if (this.#step === 'chasing' && (this.#changed.size <= keysMax || this.#chases >= chasesMax)) return this.#freeze(now)
    this.#chases++
    this.#sendChanged(now)
  }

  #freeze(now: Instant): void {
    if (this.#isOutdated) return this.stop()
    this.#step = 'freezing'
    this.#replicas.close(this.#shard)
    this.#replicas.mark(this.#shard, { state: 'frozen' })
    this.#sendChanged(now)
  }

  /** What was accepted goes on after it is durable here; under a freeze that is after the last group commit. */
  #sendChanged(now: Instant): void {
    const { journal } = this.#replicas
    const id = this.#id
    journal.afterAll(() => {
      if ((this.#step !== 'chasing' && this.#step !== 'freezing') || id !== this.#id) return
      const keys = this.#replicas.durable(this.#shard, [...this.#changed].slice(0, keysMax))
      for (const { key } of keys) this.#changed.delete(key)
      this.#send(keys, this.#step === 'freezing' && this.#changed.size === 0, now)
    })
  }

  #send(keys: readonly HandedKey[], isTail: boolean, now: Instant): void {
    const purged = this.#replicas.of(this.#shard)?.marks.purged
    const tail = isTail && purged !== undefined ? { purged, ceiling: this.#replicas.store.ceiling } : undefined
    this.#part = { type: 'part', id: this.#id, shard: this.#shard, number: ++this.#number, keys, tail }
    this.#retryMono = -Infinity
    this.tick(now)
  }
}
