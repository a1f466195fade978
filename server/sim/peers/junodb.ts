/**
 * A MODEL of JunoDB's own protocol for one key, written from its source as junodb-anomalies tells it; it is not JunoDB.
 * Pure. Why it is here: the checker has to find without a single fault what the real JunoDB does on one machine.
 *
 * What it keeps of JunoDB: a write locks W = (N+1)/2 replicas in a fixed order, the next one for each that refuses, and commits there;
 * a read asks W, answers the youngest and sends repairs behind its answer; a repair is a blind put; destroy asks all, deletes without
 * a tombstone if all agree, and marks what is there if only W do; an update passes if W accept, whatever the others say.
 * What it leaves out: disks, other sites, retries with the same id, TTLs. A condition compares as the Go client does (version,
 * creation time, originator), which is kinder than the Java client.
 */
import type { CallAnswer, Shown, Value } from '../history.ts'
import type { Peer, PeerPorts, PeerProxy, PeerRequest, PeerServer } from './peer.ts'

/** As JunoDB's code has them, in milliseconds. */
const lockMs = 600
const serverMs = 100

interface JunoRecord {
  readonly value: Value
  readonly version: number
  readonly createdAt: number
  readonly originator: string
  /** Last modification time: the clock of the proxy that wrote it. Greater is younger, and that is all that orders records. */
  readonly lmt: number
  readonly isMarked: boolean
}
type Verdict = 'ok' | 'inserting' | 'locked' | 'exists' | 'version'

export type JunoMessage =
  | { readonly type: 'read' | 'abort' | 'mark-delete'; readonly id: string }
  | { readonly type: 'prepare'; readonly id: string; readonly request: PeerRequest }
  /** `record` undefined: delete. */
  | { readonly type: 'commit'; readonly id: string; readonly record: JunoRecord | undefined }
  | { readonly type: 'repair'; readonly id: string; readonly record: JunoRecord }
  | { readonly type: 'prepared'; readonly id: string; readonly verdict: Verdict; readonly record: JunoRecord | undefined }
  | { readonly type: 'committed' | 'repaired'; readonly id: string; readonly isDone: boolean }
  | { readonly type: 'shown'; readonly id: string; readonly record: JunoRecord | undefined }

const versionText = ({ version, createdAt, originator }: JunoRecord): string => `${version} ${createdAt} ${originator}`
const shownOf = (record: JunoRecord): Shown => ({ value: record.value, version: versionText(record), createdAt: record.createdAt })
const isLive = (record: JunoRecord | undefined): record is JunoRecord => record !== undefined && !record.isMarked

class JunoServer implements PeerServer<JunoMessage> {
  readonly #ports: PeerPorts<JunoMessage>
  #record: JunoRecord | undefined
  #lock: { readonly id: string; readonly token: number } | undefined
  #tokens = 0

  constructor(ports: PeerPorts<JunoMessage>) {
    this.#ports = ports
  }

  receive(from: string, message: JunoMessage, now: number): void {
    const { id } = message
    const isHolder = this.#lock?.id === id
    switch (message.type) {
      case 'read':
        return this.#ports.send(from, { type: 'shown', id, record: this.#record })
      case 'prepare':
        return this.#ports.send(from, { type: 'prepared', id, record: this.#record, verdict: this.#prepare(id, message.request) })
      case 'commit':
        if (isHolder) {
          this.#record = message.record
          this.#lock = undefined
        }
        return this.#ports.send(from, { type: 'committed', id, isDone: isHolder })
      case 'abort':
        if (isHolder) this.#lock = undefined
        return
      case 'repair':
        if (this.#lock === undefined) this.#record = message.record
        return this.#ports.send(from, { type: 'repaired', id, isDone: this.#lock === undefined })
      case 'mark-delete': {
        const isFree = this.#lock === undefined || isHolder
        if (isFree && this.#record !== undefined) this.#record = { ...this.#record, isMarked: true, lmt: now }
        if (isHolder) this.#lock = undefined
        return this.#ports.send(from, { type: 'committed', id, isDone: isFree })
      }
    }
  }

  wake(token: number): void {
    if (this.#lock?.token === token) this.#lock = undefined
  }

  #prepare(id: string, { verb, ifVersion }: PeerRequest): Verdict {
    if (this.#lock !== undefined) return 'locked'
    const record = isLive(this.#record) ? this.#record : undefined
    if (record && verb === 'create') return 'exists'
    if (record && ifVersion !== undefined && isOlder(ifVersion, record)) return 'version'
    const token = ++this.#tokens
    this.#lock = { id, token }
    this.#ports.after(lockMs, token)
    return record ? 'ok' : 'inserting'
  }
}

/** One-sided, as in storage.go: a version that is too new passes. */
function isOlder(asked: string, record: JunoRecord): boolean {
  const [version, createdAt, originator] = asked.split(' ') as [string, string, string]
  return Number(version) < record.version || Number(createdAt) !== record.createdAt || originator !== record.originator
}

interface Asking {
  readonly id: string
  readonly request: PeerRequest
  readonly answer: (answer: CallAnswer) => void
  /** Zones asked so far, in their order. */
  asked: number
  readonly waiting: Set<string>
  readonly verdicts: Map<string, { readonly verdict: Verdict; readonly record: JunoRecord | undefined }>
  readonly shown: Map<string, JunoRecord | undefined>
  phase: 'reading' | 'preparing' | 'committing' | 'over'
  /** What is being committed; undefined: a delete. */
  record: JunoRecord | undefined
  done: number
  repaired: number
}

class JunoProxy implements PeerProxy<JunoMessage> {
  readonly #ports: PeerPorts<JunoMessage>
  readonly #servers: readonly string[]
  readonly #asking = new Map<string, Asking>()
  readonly #timers = new Map<number, { readonly asking: Asking; readonly server: string; readonly phase: Asking['phase'] }>()
  #tokens = 0

  constructor(ports: PeerPorts<JunoMessage>, servers: readonly string[]) {
    this.#ports = ports
    this.#servers = servers
  }

  get #quorum(): number {
    return (this.#servers.length + 1) >> 1
  }

  request(request: PeerRequest, _now: number, answer: (answer: CallAnswer) => void): void {
    const asking: Asking = {
      id: request.requestId,
      request,
      answer,
      asked: 0,
      waiting: new Set(),
      verdicts: new Map(),
      shown: new Map(),
      phase: request.verb === 'get' ? 'reading' : 'preparing',
      record: undefined,
      done: 0,
      repaired: 0,
    }
    this.#asking.set(asking.id, asking)
    const first = request.verb === 'destroy' ? this.#servers.length : this.#quorum
    while (asking.asked < first) this.#askNext(asking)
  }

  receive(from: string, message: JunoMessage, now: number): void {
    const asking = this.#asking.get(message.id)
    if (asking === undefined) return
    const isAwaited = asking.waiting.delete(from)
    if (message.type === 'prepared' && asking.phase === 'preparing') {
      const { verdict, record } = message
      asking.verdicts.set(from, { verdict, record })
      const isAccepted = verdict === 'ok' || verdict === 'inserting'
      if (!isAccepted && asking.request.verb !== 'destroy') this.#askNext(asking)
      this.#decide(asking, now)
    } else if (message.type === 'shown' && asking.phase === 'reading') {
      asking.shown.set(from, message.record)
      this.#read(asking, now)
    } else if (message.type === 'committed' && asking.phase === 'committing' && isAwaited) {
      if (message.isDone) asking.done++
      else if (asking.record !== undefined) this.#send(asking, from, { type: 'repair', id: asking.id, record: asking.record }, true)
      this.#finish(asking, now)
    } else if (message.type === 'repaired' && asking.phase === 'committing' && isAwaited) {
      if (message.isDone) asking.repaired++
      this.#finish(asking, now)
    }
  }

  wake(token: number, now: number): void {
    const timer = this.#timers.get(token)
    this.#timers.delete(token)
    if (timer === undefined || timer.asking.phase !== timer.phase || !timer.asking.waiting.delete(timer.server)) return
    const { asking } = timer
    if (asking.phase === 'committing') return this.#finish(asking, now)
    this.#askNext(asking)
    if (asking.phase === 'reading') this.#read(asking, now)
    else this.#decide(asking, now)
  }

  #send(asking: Asking, to: string, message: JunoMessage, isAwaited: boolean): void {
    this.#ports.send(to, message)
    if (!isAwaited) return
    asking.waiting.add(to)
    const token = ++this.#tokens
    this.#timers.set(token, { asking, server: to, phase: asking.phase })
    this.#ports.after(serverMs, token)
  }

  #askNext(asking: Asking): void {
    const server = this.#servers[asking.asked]
    if (server === undefined) return
    asking.asked++
    const { id, request } = asking
    this.#send(asking, server, asking.phase === 'reading' ? { type: 'read', id } : { type: 'prepare', id, request }, true)
  }

  #read(asking: Asking, now: number): void {
    const { shown, waiting } = asking
    if (shown.size < this.#quorum) {
      if (waiting.size === 0) this.#end(asking, { type: 'no-effect', why: 'no quorum', now })
      return
    }
    let youngest: JunoRecord | undefined
    for (const record of shown.values()) if (record && record.lmt > (youngest?.lmt ?? -1)) youngest = record
    this.#end(asking, isLive(youngest) ? { type: 'read', entry: shownOf(youngest), now } : { type: 'read', now })
    if (youngest === undefined) return
    // Behind the answer, and nobody waits for it: whatever the replica has by then is overwritten.
    for (const [server, record] of shown) {
      if (record !== undefined && record.lmt === youngest.lmt) continue
      if (isLive(youngest)) this.#send(asking, server, { type: 'repair', id: asking.id, record: youngest }, false)
      else if (isLive(record)) this.#send(asking, server, { type: 'mark-delete', id: asking.id }, false)
    }
  }

  #decide(asking: Asking, now: number): void {
    const { request, verdicts, waiting, id } = asking
    const accepted = [...verdicts].filter(([, { verdict }]) => verdict === 'ok' || verdict === 'inserting')
    const isDestroy = request.verb === 'destroy'
    if (waiting.size > 0 && (isDestroy || accepted.length < this.#quorum)) return
    const lives = accepted.flatMap(([, { record }]) => (isLive(record) ? [record] : []))
    const isEnough = accepted.length >= this.#quorum
    const answer = isEnough && (isDestroy || lives.length > 0 || canInsert(request)) ? undefined : refusalOf(asking, isEnough, now)
    if (answer !== undefined) {
      for (const [server] of accepted) this.#send(asking, server, { type: 'abort', id }, false)
      return this.#end(asking, answer)
    }
    asking.phase = 'committing'
    if (isDestroy) return this.#destroy(asking, accepted, now)
    const youngest = lives.reduce<JunoRecord | undefined>((best, one) => (best === undefined || one.lmt > best.lmt ? one : best), undefined)
    asking.record = {
      value: request.value as Value,
      version: (youngest?.version ?? 0) + 1,
      createdAt: youngest?.createdAt ?? now,
      originator: youngest?.originator ?? request.requestId,
      lmt: now,
      isMarked: false,
    }
    for (const [server] of accepted) this.#send(asking, server, { type: 'commit', id, record: asking.record }, true)
    // create.go: whoever said that the record exists is overwritten by one that others did not have.
    if (request.verb !== 'create') return
    for (const [server, { verdict }] of verdicts)
      if (verdict === 'exists') this.#send(asking, server, { type: 'repair', id: `${id} again`, record: asking.record }, false)
  }

  #destroy(asking: Asking, accepted: readonly (readonly [string, { readonly record: JunoRecord | undefined }])[], now: number): void {
    const { id } = asking
    const isByAll = accepted.length === this.#servers.length
    for (const [server, { record }] of accepted) {
      if (isByAll) this.#send(asking, server, { type: 'commit', id, record: undefined }, true)
      else if (isLive(record)) this.#send(asking, server, { type: 'mark-delete', id }, true)
      else {
        this.#send(asking, server, { type: 'abort', id }, false)
        asking.done++
      }
    }
    this.#finish(asking, now)
  }

  /** Acknowledged with W commits and repairs, one commit among them. */
  #finish(asking: Asking, now: number): void {
    const { done, repaired, waiting, request, record } = asking
    if (done > 0 && done + repaired >= this.#quorum)
      return this.#end(
        asking,
        request.verb === 'destroy' ? { type: 'applied', now } : { type: 'applied', entry: shownOf(record as JunoRecord), now },
      )
    if (waiting.size === 0) this.#end(asking, { type: 'unknown', now })
  }

  #end(asking: Asking, answer: CallAnswer): void {
    asking.phase = 'over'
    this.#asking.delete(asking.id)
    asking.answer(answer)
  }
}

const canInsert = ({ verb, ifVersion }: PeerRequest): boolean => verb === 'create' || (verb === 'set' && ifVersion === undefined)

function refusalOf({ request, verdicts }: Asking, isEnough: boolean, now: number): CallAnswer {
  if (isEnough) return { type: 'missing', now }
  const refusals = [...verdicts.values()]
  const found = refusals.find(({ verdict }) => verdict === 'exists' || verdict === 'version')
  if (found?.record === undefined) return { type: 'no-effect', why: 'record locked', now }
  return { type: request.verb === 'create' ? 'exists' : 'version', entry: shownOf(found.record), now }
}

export const junodb: Peer<JunoMessage> = {
  name: 'a model of JunoDB',
  server: (ports) => new JunoServer(ports),
  proxy: (ports, servers) => new JunoProxy(ports, servers),
}
