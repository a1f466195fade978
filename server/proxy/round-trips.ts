/**
 * Round trips: how long each storage server takes to answer, as this proxy sees it.
 * Pure. Invariant: of fixed size, whatever is asked of how many servers.
 * Why it decides nothing: it says whom to ask first and how long to be patient; being wrong costs time only.
 */

/** Of each server: the share of the newest answer in its running mean. */
const share = 0.1
/** Answers to reads whose 95th percentile is the hedge delay. */
const ringLength = 256
/** Requests whose sending is remembered until they are answered. */
const sentMax = 8_192
const serversMax = 4_096
/** Before anything was measured, and the bounds of what is believed. */
const hedgeMsFirst = 10
const hedgeMsLeast = 1
const hedgeMsMost = 40

export class RoundTrips {
  readonly #ids = new Float64Array(sentMax)
  readonly #sent = new Float64Array(sentMax)
  readonly #means = new Map<string, number>()
  /** Since when a server has not answered anything that it was asked. */
  readonly #silentSince = new Map<string, number>()
  readonly #ring = new Float64Array(ringLength)
  #latestMono = 0
  #measured = 0
  #hedgeMs = hedgeMsFirst

  /** A request of this number left. */
  sent(id: number, mono: number): void {
    this.#ids[id % sentMax] = id
    this.#sent[id % sentMax] = mono
    this.#latestMono = mono
  }

  /** The request went to this server. */
  asked(server: string, id: number): void {
    if (this.#silentSince.has(server)) return
    if (this.#silentSince.size >= serversMax) this.#silentSince.clear()
    this.#silentSince.set(server, this.sentAt(id) ?? this.#latestMono)
  }

  /** When the request left; undefined: too long ago. */
  sentAt(id: number): number | undefined {
    return this.#ids[id % sentMax] === id ? this.#sent[id % sentMax] : undefined
  }

  /** A server answered after `ms`. `isRead`: it had no disk to wait for. */
  heard(server: string, ms: number, isRead: boolean): void {
    this.#silentSince.delete(server)
    const mean = this.#means.get(server)
    if (mean === undefined && this.#means.size >= serversMax) this.#means.clear()
    this.#means.set(server, mean === undefined ? ms : mean + (ms - mean) * share)
    if (!isRead) return
    this.#ring[this.#measured++ % ringLength] = ms
    if (this.#measured % (ringLength / 2) === 0 || this.#measured === ringLength / 8) this.#hedgeMs = this.#percentile()
  }

  /** How long to wait for a quorum before the other zones are asked, in milliseconds: the 95th percentile of late. */
  get hedgeMs(): number {
    return this.#hedgeMs
  }

  /** Index of the server that answers soonest. One that was never heard comes first, so that it is measured; one that has been silent for longer than another takes comes after it. */
  nearest(servers: readonly string[]): number {
    let best = 0
    let least = Infinity
    for (let index = 0; index < servers.length; index++) {
      const server = servers[index] as string
      const silentMs = this.#latestMono - (this.#silentSince.get(server) ?? this.#latestMono)
      const ms = Math.max(this.#means.get(server) ?? 0, silentMs)
      if (ms < least) {
        best = index
        least = ms
      }
    }
    return best
  }

  #percentile(): number {
    const sorted = this.#ring.slice(0, Math.min(this.#measured, ringLength)).sort()
    const ms = sorted[Math.floor((sorted.length - 1) * 0.95)] as number
    return Math.min(hedgeMsMost, Math.max(hedgeMsLeast, ms))
  }
}
